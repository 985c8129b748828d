"""What the decoder would say: after each layer (the logit lens), and how sure it is of each token it wrote.

    lens(reading).says(layer=3, position=37)      # the words that the state of position 37 is nearest to
    confidence(reading).probability               # of each token of the text

The lens (nostalgebraist 2020) applies the final norm and the output head to a state in the middle of the decoder. At
the last layer that is the model's output. Earlier layers were not trained for it, so read their words as a hint.
"""

from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from PIL import Image
from torch import Tensor

from lightseek.inspect.drawing import coloured_text, short, tiled
from lightseek.inspect.reading import Reading, token_text

CANDIDATES = 3


@dataclass(frozen=True, eq=False)
class Lens:
    """The likeliest next tokens after each layer, at every position. L layers, n positions, k candidates."""

    reading: Reading
    tokens: Int[Tensor, "L n k"]  # the likeliest first
    probabilities: Float[Tensor, "L n k"]

    def says(self, layer: int, position: int) -> list[tuple[str, float]]:
        """Return the candidates of one position after one layer, as (text, probability), the likeliest first."""
        texts = [token_text(self.reading.model, token) for token in self.tokens[layer, position].tolist()]
        return list(zip(texts, self.probabilities[layer, position].tolist(), strict=True))

    def picture(self, layer: int = -1) -> Image.Image:
        """Write on the page what each vision token says after a layer. Stronger colour means a higher probability."""
        positions = self.reading.image_positions.tolist()
        found = [self.says(layer, position)[0] for position in positions]
        boxes = [place.box for place in self.reading.places]
        fills = [shade(probability) for _, probability in found]
        return tiled(self.reading.picture, boxes, fills, [short(text) for text, _ in found])


def lens(reading: Reading, candidates: int = CANDIDATES) -> Lens:
    """Return what each decoder layer would say after every position of the prompt and the text."""
    decoder = reading.model.decoder
    tokens, probabilities = [], []
    with torch.inference_mode():
        for state in reading.seen.hidden:  # one layer at a time: all logits at once can be large
            final = decoder.norm(state)
            likeliest = decoder.logits(final).softmax(-1).topk(candidates, dim=-1)
            tokens.append(likeliest.indices.cpu())
            probabilities.append(likeliest.values.cpu())
    return Lens(reading, torch.stack(tokens), torch.stack(probabilities))


@dataclass(frozen=True, eq=False)
class Confidence:
    """How sure the model was of each token of a text, k candidates each."""

    reading: Reading
    probability: Float[Tensor, " tokens"]  # of the token in the text
    entropy: Float[Tensor, " tokens"]  # in nats, of the whole distribution: 0 if only one token was possible
    tokens: Int[Tensor, "tokens k"]  # the likeliest candidates
    probabilities: Float[Tensor, "tokens k"]

    def rows(self) -> list[dict[str, Any]]:
        """Return one dictionary for each token, for JSON: its text, probability, entropy and candidates."""
        model = self.reading.model
        return [
            {
                "token": word,
                "probability": round(self.probability[index].item(), 6),
                "entropy": round(self.entropy[index].item(), 6),
                "candidates": [
                    {"token": token_text(model, token), "probability": round(probability, 6)}
                    for token, probability in zip(
                        self.tokens[index].tolist(), self.probabilities[index].tolist(), strict=True
                    )
                ],
            }
            for index, word in enumerate(self.reading.words)
        ]

    def picture(self) -> Image.Image:
        """Write the text with a red background where the model was not sure."""
        return coloured_text(self.reading.words, lambda index: shade(1 - self.probability[index].item()))


def confidence(reading: Reading, candidates: int = CANDIDATES) -> Confidence:
    """Return the probability, the entropy and the likeliest candidates of each token of the text.

    The probabilities are the model's own, without the guard against repetition and without a temperature.
    """
    with torch.inference_mode():
        logs = reading.seen.logits[reading.predicting].float().log_softmax(-1)
        written = torch.tensor(reading.written, device=logs.device)
        probability = logs.gather(1, written[:, None])[:, 0].exp()
        entropy = -(logs.exp() * logs.clamp(min=-1e4)).sum(-1)  # 0 · -inf is 0 here
        likeliest = logs.exp().topk(candidates, dim=-1)
    return Confidence(reading, probability.cpu(), entropy.cpu(), likeliest.indices.cpu(), likeliest.values.cpu())


def shade(strength: float) -> tuple[int, int, int]:
    """Return a colour from white (0) to red (1)."""
    rest = round(255 - 175 * min(max(strength, 0.0), 1.0))
    return 255, rest, rest
