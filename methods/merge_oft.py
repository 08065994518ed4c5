from clbench import Method


class MergeOft(Method):
    """Rotate each layer's inputs in blocks, which keeps the angles between the layer's neurons, and merge the rotation.

    W_t = W_{t-1} R, with R = diag(R_1, R_2, ...) and R_i = (I + Q_i)(I - Q_i)^-1, orthogonal for the trained
    skew-symmetric Q_i, which start at 0. arXiv 2306.07280.

    Passed on: the merged model.
    Settings: blocks are 2 r wide for the suite's rank r, so that there are no more trained values than in the suite's
    LoRA: a layer with n inputs has n (2 r - 1) / 2.
    """

    name = "merge_oft"
    family = "merging"
    paper = "Controlling Text-to-Image Diffusion by Orthogonal Finetuning"
    arxiv = "2306.07280"
    year = "2023"
    code = "https://github.com/Zeju1997/oft"
    departures = (
        "The code divides the inputs of every layer into four blocks, and its example constrains the distance from the "
        "identity (COFT); here blocks are of one width, without a constraint."
    )

    def begin_task(self, ctx, state):
        return ctx.peft_adapter("OFT", oft_block_size=2 * ctx.rank, use_cayley_neumann=False)
