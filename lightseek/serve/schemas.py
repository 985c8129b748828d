"""The bodies of requests and answers. FastAPI checks requests with them and describes them under /docs."""

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")  # a misspelled field is an error and not a default


MODE = "tiny, small, base, large, gundam, gundam-m, or the number of tokens"
MODEL = "a name of GET /models; the default is the first"
MOST = "the longest answer, in tokens; the default is {}, or the limit of the service"
MANY = 10**6


class TextRequest(Strict):
    text: str = Field(description="the text to summarize", min_length=1)
    max_length: int | None = Field(None, ge=1, le=MANY, description=MOST.format(512))
    mode: str | None = Field(None, description=f"{MODE}; the default is small")
    model: str | None = Field(None, description=MODEL)
    temperature: float = Field(0.0, ge=0, le=5, description="0 takes the likeliest token")
    markdown: bool = Field(False, description="draw the text as Markdown")


class Region(BaseModel):
    label: str
    boxes: list[tuple[int, int, int, int]] = Field(description="left, top, right, bottom in pixels of the page")
    text: str


class PageText(BaseModel):
    page: int = Field(description="its number in the document, counted from 1")
    text: str
    tokens: int
    finish_reason: str = Field(description='"eos": it ended by itself; "length": it was cut')
    regions: list[Region] = Field([], description="the places that the text names")
    confidence: list[dict[str, Any]] | None = None


class Usage(BaseModel):
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Reading(BaseModel):
    model: str
    mode: str
    text: str = Field(description="of all pages, one after the other")
    pages: list[PageText]
    usage: Usage
    seconds: dict[str, float]


class Summary(BaseModel):
    model: str
    mode: str
    summary: str
    finish_reason: str
    pages: int
    usage: Usage
    seconds: dict[str, float]


class Extraction(BaseModel):
    model: str
    mode: str
    value: Any = Field(description="satisfies the schema of the request")
    text: str = Field(description="the same as the model wrote it")
    pages: int
    usage: Usage
    seconds: dict[str, float]


class Comparison(BaseModel):
    first: Reading
    second: Reading
    differences: list[dict[str, str]] = Field(description='parts: {"same": ...}, or {"first": ..., "second": ...}')


class ModeCount(BaseModel):
    about: str
    grid: tuple[int, int] = Field(description="columns and rows of tiles; 1 x 1 means no tiles")
    tokens: int
    newlines: int
    separators: int
    positions: int = Field(description="the sum of the three")


class DrawnPage(BaseModel):
    page: int
    width: int = Field(description="pixels")
    height: int
    image: str = Field(description="a PNG file as a data URI")
    modes: dict[str, ModeCount]


class DrawnPages(BaseModel):
    kind: Literal["picture", "pdf", "text"]
    pages: list[DrawnPage]


class Health(BaseModel):
    status: Literal["ready", "stopping"]
    model: str
    device: str
    modes: list[str] = Field(description="the modes that a request may ask for")
    memory_bytes: int
    waiting: int
    inspector: bool = Field(description="whether the page of `python -m lightseek inspect` is under /inspect")


class ModelRow(BaseModel):
    id: str
    kind: Literal["base", "adapter"]
    base: str | None
    loaded: bool
    bytes: int


class Fault(BaseModel):
    """The shape of every error."""

    class Error(BaseModel):
        type: str
        message: str
        param: str | None = None
        code: int

    error: Error


class ImageURL(BaseModel):
    url: str = Field(description="a data URI; addresses are not fetched")
    detail: str | None = None


class Part(BaseModel):
    type: Literal["text", "image_url"]
    text: str | None = None
    image_url: ImageURL | None = None


class Message(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[Part]


class ResponseFormat(BaseModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: dict[str, Any] | None = Field(None, description="with the schema in its field `schema`")


class ChatRequest(BaseModel):
    """The fields of OpenAI's chat completions that a model of ours understands. `mode` is our own."""

    model_config = ConfigDict(extra="allow")  # clients send fields that do not matter here

    model: str | None = None
    messages: list[Message] = Field(min_length=1)
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    temperature: float = Field(0.0, ge=0, le=5)
    top_p: float = Field(1.0, gt=0, le=1)
    seed: int | None = Field(None, ge=0, le=2**62)
    stream: bool = False
    stream_options: dict[str, Any] | None = None
    n: int = Field(1, ge=1, le=1, description="one answer for each request")
    response_format: ResponseFormat | None = Field(None, description="holds the answer to a JSON schema")
    mode: str | None = Field(None, description=f"the mode of the pages: {MODE}; the default is base")
    details: bool = Field(False, description="add `lightseek` to the answer: seconds, regions, text without tags")
    confidence: bool = Field(False, description="add the confidence of each token to the details; for one page")
