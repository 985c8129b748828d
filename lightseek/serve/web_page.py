"""The page of the service: `GET /` is one file of HTML, which uses the other routes as any client does.

`POST /pages` draws a document and counts its tokens in each mode, so that the page can show them before it asks for a
text.
"""

import base64
from collections.abc import Sequence
from importlib.resources import files
from io import BytesIO
from typing import Annotated, Any

from fastapi import FastAPI, Form
from fastapi.responses import HTMLResponse
from PIL import Image

from lightseek.model.config import OCRConfig
from lightseek.page.modes import MODES, check_shape, gundam_grid
from lightseek.serve.documents import Document
from lightseek.serve.schemas import MANY, MODE, MODEL, DrawnPage, DrawnPages, ModeCount
from lightseek.serve.service import OpenDocument, Service, Upload, in_thread
from lightseek.text.kinds import PROMPTS

# The page has its own styles and scripts inside. It may talk to this server only.
POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; connect-src 'self'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)


def add_routes(app: FastAPI, service: Service, keyed: Sequence[Any], opened: OpenDocument) -> None:
    """Add GET / and POST /pages. `opened` opens what a client sent."""
    page = (files("lightseek") / "serve" / "templates" / "page.html").read_text(encoding="utf-8")

    @app.get("/", tags=["page"], response_class=HTMLResponse)
    def show() -> HTMLResponse:
        """Show the page of this service."""
        return HTMLResponse(page, headers={"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"})

    @app.get("/prompts", tags=["page"], dependencies=keyed)
    def prompts() -> dict[str, str]:
        """List the prompts by name."""
        return dict(PROMPTS)

    @app.post("/pages", tags=["page"], dependencies=keyed)
    async def pages(
        file: Upload,
        mode: Annotated[str | None, Form(description=MODE)] = None,
        model: Annotated[str | None, Form(description=MODEL)] = None,
        first_page: Annotated[int, Form(ge=1, le=MANY)] = 1,
        last_page: Annotated[int | None, Form(ge=1, le=MANY)] = None,
        password: Annotated[str | None, Form(max_length=1000)] = None,
    ) -> DrawnPages:
        """Draw the pages of a document as PNG, and count the positions that each takes in each mode."""
        wish = service.wish(model, mode, None)
        document = await opened(file, wish, first_page, last_page, password=password)
        return await in_thread(lambda: drawn(document, service.models.use_config(wish.base)))


def drawn(document: Document, config: OCRConfig) -> DrawnPages:
    found = []
    for number, picture in zip(document.numbers, document.pages, strict=True):
        file = BytesIO()
        picture.save(file, "PNG", compress_level=1)
        image = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        modes = {name: count for name in MODES if (count := count_mode(picture, name, config))}
        found.append(DrawnPage(page=number, width=picture.width, height=picture.height, image=image, modes=modes))
    return DrawnPages(kind=document.kind, pages=found)


def count_mode(picture: Image.Image, name: str, config: OCRConfig) -> ModeCount | None:
    """Return what a picture takes in a mode, or None if the model cannot read it in this mode."""
    mode = MODES[name]
    grid = gundam_grid(*picture.size, mode.tile) if mode.tile else (1, 1)
    try:
        check_shape(*picture.size, mode)
        count = config.arithmetic.of_mode(mode, grid)
    except ValueError:
        return None
    about = mode.description
    return ModeCount(about=about, grid=grid, positions=count.positions, **count._asdict())
