"""Every annotation in `lightseek` is enforced while the tests run: a shape that lies fails."""

from jaxtyping import install_import_hook

install_import_hook("lightseek", "beartype.beartype")
