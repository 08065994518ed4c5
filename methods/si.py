from typing import Annotated, Any

from pydantic import Field

from clbench import Method
from clbench.method import SearchRange, Settings


class SI(Method):
    """Go on training one adapter, held where its values made the loss fall in earlier tasks (synaptic intelligence).

    A value's importance is its share of the loss's decrease, added up along the path that training took, relative to
    how far the value went; it needs no pass over the data after training.

    loss + strength * sum_i Omega_i (theta_i - theta*_i)^2 over the values theta of all A and B, with theta* those
    handed on; per task Omega_i += w_i / ((theta_i(end) - theta_i(start))^2 + damping), w_i = -sum over steps of g_i
    dtheta_i with the gradient g of the diffusion loss alone, before clipping, and the change dtheta that the
    optimizer made.

    Passed on: the adapter, and Omega (twice an adapter).
    Settings: `strength` 5 and `damping` 0.01, as in CLoG (diffusion).
    """

    name = "si"
    family = "regularization"
    paper = "Continual Learning Through Synaptic Intelligence"
    arxiv = "1703.04200"
    year = "2017"
    code = "https://github.com/linhaowei1/CLoG"
    departures = (
        "On the factors A and B. The penalty's gradient is added after g is read, as in mammoth; CLoG's g includes it."
    )

    class Config(Settings):
        strength: Annotated[float, SearchRange(1, 1e6)] = Field(5.0, ge=0, description="Weight of the penalty.")
        damping: float = Field(0.01, gt=0, description="Added to the squared change, so that no importance explodes.")

    def begin_task(self, ctx, state):
        start = state.adapter or ctx.fresh_adapter()
        self._start, self._path, self._step = start.tensors(), {}, None
        return start

    def on_gradients(self, ctx):
        live: dict[str, Any] = ctx.adapter.tensors()
        self._follow(live)
        self._step = {name: (theta.detach().clone(), theta.grad.clone()) for name, theta in live.items()}
        if ctx.state.adapter is None:
            return
        anchor, omega = ctx.state.adapter.tensors(), ctx.state.extra
        for name, theta in live.items():
            pull = omega[name].to(theta) * (theta.detach() - anchor[name].to(theta))
            theta.grad += 2 * self.config.strength * pull

    def _follow(self, now):
        """Add what the latest step contributed, now that it is known how far the optimizer went."""
        for name, (theta, gradient) in (self._step or {}).items():
            self._path[name] = self._path.get(name, 0.0) - gradient * (now[name].detach().to(theta) - theta)

    def end_task(self, ctx, state, adapter):
        self._follow(adapter.tensors())
        omega = {
            name: state.extra.get(name, 0.0)
            + self._path[name].float().cpu() / ((theta - self._start[name]).square() + self.config.damping)
            for name, theta in adapter.tensors().items()
        }
        return state.with_adapter(adapter).with_extra(**omega)
