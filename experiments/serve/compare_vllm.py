"""Does a running vLLM compute what LightSeek computes from the same files? Both read the same pages.

    python experiments/serve/compare_vllm.py http://localhost:8000 FOLDER page.png ...

vLLM writes greedily, and tells the logarithm of the probability of each token. LightSeek then gets the same prompt and
the same tokens, and computes the same figures in one pass. So a token that is chosen otherwise changes no other figure.
With `--answers FILE`, vLLM's answers are kept there. If the file exists, vLLM is not asked: it may be stopped by then,
and the two models need not be in memory together.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import httpx
import torch
from PIL import Image

from lightseek.page.pictures import upright_rgb
from lightseek.page.views import image_positions, page_views
from lightseek.serve.jobs import Job, Wish
from lightseek.serve.upstream import Upstream, request_of
from lightseek.text.kinds import PROMPTS
from lightseek.text.prompts import prompt_ids
from lightseek.weights.loading import load_model

PROMPT = PROMPTS["ocr"]


def ask(url: str, model: str, pages: list[Path], tokens: int) -> list[dict[str, Any]]:
    """Return vLLM's choice for each page, with the ids and the log probabilities of the tokens, and of the prompt."""
    found = []
    for path in pages:
        wish = Wish(model, model, None, "gundam", tokens, guard="none")
        page = Upstream.page(None, Image.open(path), "gundam")
        body = request_of(Job(wish, PROMPT, [page], deadline=0.0)) | {"stream": False, "return_token_ids": True}
        del body["stream_options"]
        answer = httpx.post(f"{url}/v1/chat/completions", json=body | {"logprobs": True}, timeout=None)
        whole = answer.raise_for_status().json()
        (choice,) = whole["choices"]
        logs = [token["logprob"] for token in choice["logprobs"]["content"]]
        found.append({"prompt": whole["prompt_token_ids"], "tokens": choice["token_ids"], "logs": logs})
    return found


@torch.inference_mode()
def compare(model: Any, path: Path, there: dict[str, Any]) -> str:
    """Return a line of figures about one page."""
    views = page_views(upright_rgb(Image.open(path)), "gundam")
    prompt = prompt_ids(model.config, model.tokenizer, PROMPT, [image_positions(views, model.config.arithmetic)])
    if prompt != there["prompt"]:
        return f"{path.name}: {len(prompt)} tokens in the prompt, and vLLM has others ({len(there['prompt'])})"
    ids = torch.tensor([prompt + there["tokens"]], device=model.device)
    logits = model(ids, pages=[[views]]).logits[0, len(prompt) - 1 : -1].float()
    written = torch.tensor(there["tokens"], device=model.device)
    logs = logits.log_softmax(-1).gather(1, written[:, None])[:, 0].cpu()
    same = int((logits.argmax(-1) == written).sum())
    off = (logs - torch.tensor(there["logs"])).abs()
    return (
        f"{path.name}: the same prompt ({len(prompt)} tokens); {same} of {len(written)} tokens are LightSeek's choice "
        f"too; log probabilities differ by {off.max():.2g} at most, {off.mean():.2g} on average"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("url")
    parser.add_argument("folder", help="the model that vLLM serves")
    parser.add_argument("pages", nargs="+", type=Path, help="pictures; vLLM reads them in the mode gundam")
    parser.add_argument("--name", help="the model or adapter to ask for (default: vLLM's first)")
    parser.add_argument("--adapter", help="the folder of that adapter")
    parser.add_argument("--dtype", help="of LightSeek's weights (default: that of the files)")
    parser.add_argument("--tokens", type=int, default=16)
    parser.add_argument("--answers", type=Path, help="keep vLLM's answers in this file, or take them from it")
    given = parser.parse_args()
    if given.answers and given.answers.exists():
        answers = json.loads(given.answers.read_text())
    else:
        name = given.name or httpx.get(f"{given.url}/v1/models").json()["data"][0]["id"]
        answers = ask(given.url, name, given.pages, given.tokens)
        if given.answers:
            given.answers.write_text(json.dumps(answers))
    model = load_model(given.folder, dtype=given.dtype, adapter=given.adapter)
    for path, answer in zip(given.pages, answers, strict=True):
        print(compare(model, path, answer), flush=True)


if __name__ == "__main__":
    main()
