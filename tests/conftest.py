"""Checks every type and shape annotation in `lightseek` while the tests run. A wrong shape fails the test."""

from jaxtyping import install_import_hook

install_import_hook("lightseek", "beartype.beartype")
