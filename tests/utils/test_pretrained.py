"""Loading models by libraries that talk."""

from contextlib import suppress

import diffusers
import transformers

from clbench.utils.pretrained import quietly


def test_libraries_are_quiet_while_models_are_loaded_and_talk_as_before_afterwards():
    modules = (transformers.logging, diffusers.utils.logging)

    def levels():
        return [(one.get_verbosity(), one.is_progress_bar_enabled()) for one in modules]

    before = levels()
    with suppress(OSError), quietly():
        assert levels() == [(40, False)] * 2
        raise OSError
    assert levels() == before
