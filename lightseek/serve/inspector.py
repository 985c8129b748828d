"""The inspector: a page in the browser that shows what happens when a model reads a page. Built with Gradio.

`looks.py` computes what is shown; this file only lays it out. The page loads nothing from other machines: no fonts, no
scripts, no analytics.
"""

import os
from collections.abc import Callable
from functools import wraps
from typing import Any

os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")  # read when gradio is imported

import gradio as gr

from lightseek.inspect.interventions import EDITS
from lightseek.inspect.logits import lens
from lightseek.model.ocr import DeepSeekOCR
from lightseek.page.modes import MODES
from lightseek.serve import looks
from lightseek.serve.documents import PDFIUM
from lightseek.serve.service import Service

THEME = gr.themes.Default(font=["system-ui", "sans-serif"], font_mono=["ui-monospace", "monospace"])
PLAIN = {"combine_adjacent": False, "show_legend": False, "interactive": False}
CSS = """
.textfield { font-size: 0; }  /* Gradio puts a space after each token */
.textfield span { padding: 1px 0 !important; margin: 0 !important; border-radius: 0 !important; }
.textfield .text { font-size: 16px; white-space: pre-wrap; }
#page img, #looked img { max-height: 520px; }
pre, pre code { white-space: pre-wrap !important; }
"""
LOOK = {"theme": THEME, "css": CSS, "footer_links": [], "max_file_size": "50mb"}
LAYERS_SAY = ["layer", "first", "second", "third"]
PICTURE = {
    "interactive": False,
    "show_label": False,
    "buttons": [],
}  # a label or a button would cover a part of the page
DOUBT = "A red background marks tokens that the model was not sure of. Click a token to see where it looked."


def build(model: DeepSeekOCR, name: str = "nano", run: Callable[[Any], Any] = lambda handler: handler) -> gr.Blocks:
    """Return the page for a loaded model. `run` wraps each function that the page calls, such as for its thread."""
    layers = len(model.decoder.layers)
    heads = getattr(model.decoder.config, "heads", 0) or 0
    with gr.Blocks(title="LightSeek: look inside", analytics_enabled=False) as page:
        gr.Markdown(
            f"# Look inside {name}\nPick a page and a mode. Then let the model read, and click on what it wrote."
        )
        reading, chosen = gr.State(), gr.State(0)
        with gr.Row():
            with gr.Column(scale=1, min_width=300):
                example = gr.Dropdown(list(looks.EXAMPLES), value="a note", label="Example")
                text = gr.Textbox(label="or type a text", lines=2, elem_id="typed")
                file = gr.File(label="or drop a picture, a PDF or a text", type="filepath", height=180)
                number = gr.Number(1, label="Page", precision=0, minimum=1, elem_id="number")
                mode = gr.Radio([(m.label, m.name) for m in MODES.values()], value="small", label="Mode")
            with gr.Column(scale=2, min_width=300):
                gr.Markdown("The page, with its grid of vision tokens")
                shown = gr.Image(elem_id="page", **PICTURE)
                sums = gr.Markdown(label="Token arithmetic", elem_id="sums")
        source = [mode, example, file, text, number]

        with gr.Tab("Read"):
            start = gr.Button("Read the page", variant="primary", elem_id="read")
            line = gr.Markdown(DOUBT, elem_id="line")
            with gr.Row():
                with gr.Column(scale=1, min_width=300):
                    words = gr.HighlightedText(label="What it wrote", elem_id="words", **PLAIN)
                    with gr.Row():
                        layer = gr.Dropdown(
                            ["mean", "rollout", *(str(i + 1) for i in range(layers))], value="mean", label="Layer"
                        )
                        head = gr.Dropdown(["mean", *(str(i + 1) for i in range(heads))], value="mean", label="Head")
                    told = gr.Markdown(elem_id="told")
                    layers_say = gr.Dataframe(
                        headers=LAYERS_SAY, label="What each layer would have written here", elem_id="layers"
                    )
                    experts = gr.Dataframe(
                        headers=["layer", "experts (probability)"], label="Experts, by mixture layer", elem_id="experts"
                    )
                with gr.Column(scale=1, min_width=300):
                    gr.Markdown("Where it looked. Click a place to see what its vision token says.")
                    looked = gr.Image(elem_id="looked", **PICTURE)
        with gr.Tab("Change a part"):
            gr.Markdown("The output of one stage is changed in every pass. What does the model write then?")
            with gr.Row():
                stages = looks.stages_to_change(model)
                stage = gr.Dropdown(
                    stages, value="projector" if "projector" in stages else stages[0], label="Stage", elem_id="stage"
                )
                edit = gr.Radio([e for e in EDITS if e != "keep"], value="zero", label="Change", elem_id="edit")
            change = gr.Button("Read with and without it", elem_id="change")
            with gr.Row():
                before, after = gr.Textbox(label="Unchanged", lines=6), gr.Textbox(label="Changed", lines=6)
        with gr.Tab("Two modes"):
            with gr.Row():
                first = gr.Dropdown([(m.label, m.name) for m in MODES.values()], value="tiny", label="One mode")
                second = gr.Dropdown([(m.label, m.name) for m in MODES.values()], value="base", label="The other")
            compare = gr.Button("Read in both", elem_id="compare")
            with gr.Row():
                left, right = (
                    gr.HighlightedText(combine_adjacent=False, show_legend=False, label=side)
                    for side in ("One", "Other")
                )
            with gr.Row():
                left_sums, right_sums = gr.Markdown(), gr.Markdown()
        with gr.Tab("Trace"):
            follow = gr.Button("Follow the page through the model", elem_id="follow")
            stages_table = gr.Dataframe(
                headers=["stage", "output", "parameters", "ms", "note"], label="Stages of one pass", wrap=True
            )

        def show(*inputs: Any):
            found = draw(*inputs)
            return looks.with_grid(model, found.picture, inputs[0]), (
                f"**{found.title}**\n\n{looks.arithmetic(model, found.picture, inputs[0])}"
            )

        def draw(mode: str, example: str, file: str | None, text: str | None, number: int | float | None) -> looks.Page:
            with telling():
                return looks.draw_page(model, mode, example, file, text or "", int(number or 1))

        def read(*inputs: Any):
            with telling():
                found = looks.read_page(model, draw(*inputs).picture, inputs[0])
            return (
                found,
                looks.tokens_by_doubt(found),
                f"{looks.about(found)}. {DOUBT}",
                *at_token(found, 0, "mean", "mean"),
                0,
            )

        def at_token(found: Any, token: int, layer: str, head: str):
            if found is None:
                raise gr.Error("Let the model read the page first.", print_exception=False)
            picture, told = looks.attention_picture(found, token, layer, head)
            position = found.prompt_length - 1 + token
            return picture, told, looks.token_table(found, token), looks.experts_table(found, position)

        def click_token(found: Any, layer: str, head: str, event: gr.SelectData):
            return *at_token(found, event.index, layer, head), event.index

        def click_page(found: Any, event: gr.SelectData):
            if found is None:
                raise gr.Error("Let the model read the page first.", print_exception=False)
            factor = looks.enlarged(found.picture)[1]
            position = looks.position_at(found, event.index[0] / factor, event.index[1] / factor)
            if position is None:
                raise gr.Error("There is no vision token in this place.", print_exception=False)
            told = f"vision token at position {position}: what each layer would write after it"
            return told, looks.says_table(lens(found), position), looks.experts_table(found, position)

        def with_and_without(stage: str, edit: str, *inputs: Any):
            picture = draw(*inputs).picture
            with telling():
                found = [looks.read_page(model, picture, inputs[0], *change) for change in ((), (stage, edit))]
            return [reading.text or "(nothing: the text ended at once)" for reading in found]

        def both(first: str, second: str, *inputs: Any):
            found = []
            for mode in (first, second):
                picture = draw(mode, *inputs[1:]).picture
                with telling():
                    found.append((looks.tokens_by_doubt(looks.read_page(model, picture, mode)), picture, mode))
            sums = [f"**{mode}**\n\n{looks.arithmetic(model, picture, mode)}" for _, picture, mode in found]
            return found[0][0], found[1][0], *sums

        def stages_of(*inputs: Any):
            with telling():
                return looks.trace_rows(model, draw(*inputs).picture, inputs[0])

        looked_at = [looked, told, layers_say, experts]
        for part in source:
            part.change(run(show), source, [shown, sums], show_progress="hidden")
        page.load(run(show), source, [shown, sums])
        start.click(run(read), source, [reading, words, line, *looked_at, chosen])
        # Of several clicks during an answer, the last one is answered then.
        quick = {"show_progress": "hidden", "trigger_mode": "always_last"}
        words.select(run(click_token), [reading, layer, head], [*looked_at, chosen], **quick)
        for which in (layer, head):
            which.input(run(at_token), [reading, chosen, layer, head], looked_at, **quick)
        looked.select(run(click_page), [reading], [told, layers_say, experts], **quick)
        change.click(run(with_and_without), [stage, edit, *source], [before, after])
        compare.click(run(both), [first, second, *source], [left, right, left_sums, right_sums])
        follow.click(run(stages_of), source, stages_table)
    return page


class telling:
    """Shows an error that the user can put right on the page, and nothing of it on the server's terminal."""

    def __enter__(self) -> None: ...

    def __exit__(self, kind: Any, error: BaseException | None, _: Any) -> None:
        if isinstance(error, ValueError | OSError):
            raise gr.Error(str(error), print_exception=False) from None


def mount(app: Any, service: Service, path: str = "/inspect") -> None:
    """Put the inspector of the service's first model, without adapters, under a path of the application.

    It shares the model with the other routes, so all of its work is done by the engine's thread.
    """
    models = service.models
    model = models.use(models.first, None)

    def run(handler: Any) -> Any:
        @wraps(handler)
        def in_engine(*inputs: Any) -> Any:
            def work() -> Any:
                models.use(models.first, None)
                with PDFIUM:
                    return handler(*inputs)

            return service.engine.call(work)

        return in_engine

    # A browser that shows Gradio's page asks for these two at the root, wherever the page is mounted.
    @app.get("/manifest.json", include_in_schema=False)
    def manifest() -> dict[str, str]:
        return {"name": "LightSeek", "start_url": f"{path}/", "display": "browser"}

    @app.get("/favicon.ico", include_in_schema=False, status_code=204)
    def icon() -> None: ...

    gr.mount_gradio_app(app, build(model, models.first, run), path=path, **LOOK)
    service.inspector = True


def launch(model: DeepSeekOCR, name: str, host: str, port: int | None, browser: bool, wait: bool = True) -> str:
    """Serve the page and return its address. With `wait`, return when the server is stopped."""
    page = build(model, name)
    _, address, _ = page.launch(
        server_name=host,
        server_port=port,
        inbrowser=browser,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        **LOOK,
    )
    print(f"the inspector is at {address} (stop it with Ctrl-C)", flush=True)
    if wait:
        page.block_thread()
    return address
