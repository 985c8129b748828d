"""What the inspector page shows, without the page: documents become pictures, readings become tables and drawings."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image, ImageDraw

from lightseek.inspect.attention import attention_on_page
from lightseek.inspect.drawing import enlarged, short
from lightseek.inspect.interventions import intervene
from lightseek.inspect.logits import confidence, lens
from lightseek.inspect.places import image_places
from lightseek.inspect.reading import Reading, observe
from lightseek.inspect.recorder import INSIDE, stage_names
from lightseek.inspect.trace import page_tokens, trace
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import find_mode
from lightseek.page.render import fit_pages, is_text, open_file, page_style, render_file, render_text
from lightseek.page.views import page_views

EXAMPLES = {
    "a note": "The garden opens at nine.\nBring 12 apples and a red coat.",
    "a bill": "Invoice AX-4417\nTotal: €38.20\nDue: 14 May 2031",
    "the note, its words shuffled": "apples nine. red The at a\ncoat. garden and Bring opens 12",
}
LONGEST = 300  # tokens that the page lets a model write


@dataclass(frozen=True)
class Page:
    """One page of a document, ready to be read."""

    picture: Image.Image
    number: int
    pages: int  # of the document

    @property
    def title(self) -> str:
        return f"page {self.number} of {self.pages}, {self.picture.width} x {self.picture.height} pixels"


def draw_page(model: DeepSeekOCR, mode: str, example: str, file: str | None, text: str, number: int = 1) -> Page:
    """Return one page of the dropped file, else of the typed text, else of the example, as `mode` needs it.

    Raises ValueError for a file that cannot be read and for a page that the document does not have.
    """
    letters = model.config.letters
    if file and not is_text(file):
        with open_file(Path(file)) as document:
            check_page(number, len(document))
            return Page(document.draw(number - 1), number, len(document))
    if file:
        pages = render_file(Path(file), page_style(mode), letters=letters).pages
    else:
        content, style = text.strip() or EXAMPLES[example], page_style(mode)
        pages = render_text(content, fit_pages(content, style, *letters) if letters else style).pages
    check_page(number, len(pages))
    return Page(pages[number - 1].image, number, len(pages))


def check_page(number: int, pages: int) -> None:
    if not 1 <= number <= pages:
        raise ValueError(f"the document has {pages} page(s), so there is no page {number}")


def with_grid(model: DeepSeekOCR, picture: Image.Image, mode: str) -> Image.Image:
    """Draw the borders of the vision tokens on a page, and those of tiles in bold."""
    drawing, factor = enlarged(picture)
    brush = ImageDraw.Draw(drawing)
    views = page_views(picture, mode)
    found = image_places(views, mode, picture.size, model.config.arithmetic)
    parts = [place for place in found if place.box and place.part == found[0].part]
    for place in parts:
        last = [drawing.width - 1, drawing.height - 1] * 2  # a line at the edge must still be on the picture
        edges = [min(round(edge * factor), end) for edge, end in zip(place.box, last, strict=True)]
        brush.rectangle(edges, outline=(120, 160, 210))
    if views.tiles is not None:
        columns, rows = views.grid
        for column in range(columns):
            for row in range(rows):
                left, top = drawing.width * column / columns, drawing.height * row / rows
                corner = (left, top, left + drawing.width / columns, top + drawing.height / rows)
                brush.rectangle(corner, outline=(31, 119, 180), width=4)
    return drawing


def arithmetic(model: DeepSeekOCR, picture: Image.Image, mode: str) -> str:
    """Return the token arithmetic of a page in a mode, as Markdown."""
    views = page_views(picture, mode)
    return "```\n" + str(page_tokens(views, mode, picture.size, arithmetic=model.config.arithmetic)) + "\n```"


def read_page(model: DeepSeekOCR, picture: Image.Image, mode: str, stage: str = "", edit: str = "keep") -> Reading:
    """Read a page. With a stage, its output is edited during the whole generation."""
    if not stage or edit == "keep":
        return observe(model, picture, mode, max_new_tokens=LONGEST)
    with intervene(model, stage, edit):
        reading = observe(model, picture, mode, max_new_tokens=LONGEST)
        _ = reading.seen  # the pass belongs to the edited model
        return reading


def tokens_by_doubt(reading: Reading) -> list[tuple[str, float]]:
    """Return each token of the text with how unsure the model was, from 0 to 1."""
    doubt = (1 - confidence(reading).probability).tolist()
    return list(zip((printable(word) for word in reading.words), doubt, strict=True))


def printable(word: str) -> str:
    """Return a token as the page shows it: a visible line break, and the stop token as ■."""
    return short(word) if word.startswith("<") else word.replace("\n", "↵\n")


def about(reading: Reading) -> str:
    """Return one line about a reading: its length, how it ended and how sure the model was."""
    probability = confidence(reading).probability
    ended = {"eos": "it ended by itself", "length": "it was cut at the length limit"}[reading.finish_reason]
    unsure = int((probability < 0.5).sum())
    return (
        f"{len(reading.written)} tokens, {ended}; mean probability {probability.mean():.3f}, "
        f"{unsure} token(s) below one half"
    )


def token_table(reading: Reading, token: int) -> list[list[Any]]:
    """Return what each decoder layer would have said in the place of a token: layer, three candidates."""
    found, position = lens(reading), reading.prompt_length - 1 + token
    return says_table(found, position)


def says_table(found: Any, position: int) -> list[list[Any]]:
    layers = range(found.tokens.shape[0])
    return [
        [layer + 1, *(f"{short(text, 12)}  {probability:.2f}" for text, probability in found.says(layer, position))]
        for layer in layers
    ]


def experts_table(reading: Reading, position: int) -> list[list[Any]]:
    """Return the experts that one position took in each mixture-of-experts layer, with their probabilities."""
    rows = []
    for layer, routing in enumerate(reading.seen.routing):
        chosen = routing.experts.flatten(0, -2)[position].tolist()
        weights = routing.weights.flatten(0, -2)[position].tolist()
        taken = (f"{e} ({w:.2f})" for e, w in zip(chosen, weights, strict=True))
        rows.append([layer + 1, ", ".join(taken)])
    return rows


def attention_picture(reading: Reading, token: int, layer: str, head: str) -> tuple[Image.Image, str]:
    """Return the page with what one token looked at, and a line that says so in words."""
    which = int(layer) - 1 if layer.isdigit() else layer
    found = attention_on_page(reading, which, int(head) - 1 if head.isdigit() and layer != "rollout" else "mean")
    share = found.share[token].item()
    return found.picture(token), f"{short(reading.words[token], 12)!r} (token {token + 1}): {share:.0%} on the page"


def position_at(reading: Reading, x: float, y: float) -> int | None:
    """Return the position in the sequence of the vision token at a point of the page, in pixels of its picture.

    If a page has tiles, it is the token of the tile, which sees more than that of the global view.
    """
    for index, place in enumerate(reading.places):
        if place.box and place.box[0] <= x < place.box[2] and place.box[1] <= y < place.box[3]:
            return int(reading.image_positions[index])
    return None


def trace_rows(model: DeepSeekOCR, picture: Image.Image, mode: str) -> list[list[Any]]:
    """Return one row for each stage of a pass: name, shape, parameters, milliseconds, note."""
    views = page_views(picture, mode)
    reading_ids = [model.config.bos_token_id] + [model.config.image_token_id] * len(
        image_places(views, mode, picture.size, model.config.arithmetic)
    )
    found = trace(model, torch.tensor([reading_ids], device=model.device), [[views]], mode=find_mode(mode))
    return [
        [s.name, " x ".join(map(str, s.shape)), s.parameters, round(1000 * s.seconds, 1), s.note]
        for s in found.stages
        if s.level < INSIDE
    ]


def stages_to_change(model: DeepSeekOCR) -> list[str]:
    """Return the stages that the page offers for interventions: the boxes' outputs and the decoder's layers."""
    names = [name for name, _, level in stage_names(model) if level < INSIDE]
    inside_decoder = [name for name in names if name.startswith("decoder.layers")]
    boxes = [n for n in names if n.count(".") < 2 and not n.startswith("decoder") and n != "encoder.concat"]
    return [*boxes, *inside_decoder]
