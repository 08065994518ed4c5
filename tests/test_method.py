"""A method's settings: what is unknown or unusable is refused, in one sentence."""

import pytest
from commands import CLBENCH, execute
from pydantic import BaseModel

from clbench.errors import ClbenchError
from clbench.method import Method

PLUGIN = """
from pydantic import BaseModel
from clbench import Method

class L2(Method):
    name = "l2"

    class Config(BaseModel):
        strength: float = 1.0
"""


class Plain(Method):
    """Its settings are a plain pydantic model, which ignores what it does not know; not registered."""

    class Config(BaseModel):
        strength: float = 1.0


def test_a_misspelt_setting_is_refused_with_the_nearest_right_one_where_a_person_meets_it(tmp_path):
    plugin = tmp_path / "l2.py"
    plugin.write_text(PLUGIN)
    run = [CLBENCH, "sweep", "--methods", "l2", "--tracks", "styles", "--plugin", plugin, "--quick", "--dry-run"]
    done = execute(*run, "--set", "l2.strenght=5", "--output", tmp_path / "runs", code=2)
    assert "method l2 has no setting 'strenght'; did you mean 'strength'? (known: strength)" in done.stderr


def test_a_value_that_a_setting_does_not_take_is_refused_by_its_name():
    with pytest.raises(ClbenchError, match="setting 'strength': Input should be a valid number"):
        Plain(strength="much")
    assert Plain(strength=5).config.strength == 5


def test_every_method_takes_a_learning_rate_and_no_setting_that_it_does_not_have():
    assert Method(learning_rate=1e-3).config.learning_rate == 1e-3
    with pytest.raises(ClbenchError, match="has no setting 'strength'"):
        Method(strength=1)


@pytest.mark.parametrize("config", [dict, {"strength": 1.0}, Plain.Config()])
def test_settings_that_are_no_pydantic_model_are_refused_in_one_sentence(config):
    method = type("Strange", (Method,), {"Config": config})
    with pytest.raises(ClbenchError, match=r"its Config is .* expected a pydantic model"):
        method()
