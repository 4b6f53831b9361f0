"""The public surface of the training library: what it exports, and what importing it costs."""

import subprocess
import sys

import pytest

import artesian.train


def test_every_exported_name_is_there_and_comes_from_this_library() -> None:
    for name in artesian.train.__all__:
        assert getattr(artesian.train, name).__module__.startswith("artesian.train.")


def test_the_exported_names_are_exactly_those_that_can_be_imported_lazily() -> None:
    assert artesian.train.__all__ == sorted(artesian.train.__all__)
    assert set(artesian.train.__all__) == set(artesian.train._HOME)
    assert set(artesian.train.__all__) <= set(dir(artesian.train))


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Trainer'"):
        _ = artesian.train.Trainer


@pytest.mark.parametrize("module", ["artesian.train", "artesian.train.launch"])
def test_importing_it_does_not_import_torch_or_numpy(module: str) -> None:
    code = f"import sys, {module}; sys.exit(bool({{'torch', 'numpy'}} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
