"""VisionLanguage: a picture's patches stand among the words that a GPT reads (LLaVA, Liu et al. 2023)."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from family.core.cache import Cache
from family.core.init import init_linear
from family.generation import search_or_sample
from family.generation.speculative import PROMPT
from family.inputs.image_slots import image_id_of, with_image_token
from family.inputs.text import Vectors
from family.losses.token_loss import TokenLoss
from family.models.examples import ILLUSTRATED
from family.models.gpt import GPT
from family.models.member import build, describe, member, member_named, placed
from family.models.vit import ViT

PROJECTORS = ("mlp", "linear")


@member(
    task="VisionChat",
    reads=("text", "pictures"),
    inputs=ILLUSTRATED,
    example={
        "vision": {
            "class": "ViT",
            "arguments": {
                "config": {"dim": 16, "depth": 2, "heads": 2, "position": "learned"},
                "image_size": 16,
                "patch_size": 8,
            },
        },
        "language": {
            "class": "GPT",
            "arguments": {
                "vocab_size": 40,
                "config": {
                    **{"dim": 24, "depth": 2, "heads": 2, "max_tokens": 48},
                    **{"causal": True, "position": "rotary"},
                },
            },
        },
        "image_id": 40,
    },
    variants=({"shuffle": 2, "projector": "linear"}, {"keep_prefix": True}),
)
class VisionLanguage(nn.Module):
    """pixels -> ViT -> projection -> GPT, in the place of the tokens that stand for pictures (figure 1).

    Both parts are given as :func:`~family.models.member.describe` describes them, by the name of a member and
    its arguments; :func:`join_vision_language` puts trained ones together. Of the ViT all but its pooling and
    its classes is used: its tokens after the final norm, where it has one.

    Args:
        vision: a :class:`~family.models.vit.ViT`, or the picture tower of a CLIP, which is one.
        language: a :class:`~family.models.gpt.GPT`.
        image_id: the token that stands for a vector of a picture; it need not be in the GPT's table.
        projector: from the patches' width to the words': "mlp", two linear layers with a GELU between them
            (LLaVA 1.5, Liu et al. 2024), or "linear".
        shuffle: so many patches a side are merged into one vector before the projection, which leaves
            ``shuffle ** 2`` times fewer slots (the pixel shuffle of Idefics3, Laurençon et al. 2024).
        keep_prefix: class and register tokens have slots too, before the patches.
        vocab_size, image_size: of GPT and ViT, in the place of what their descriptions say.

    Attributes:
        vocab_size: ids that it reads; ``language.vocab_size`` are those that it writes.

    Raises:
        ValueError: parts of another kind, an unknown ``projector``, a ``shuffle`` that does not divide the
            patches or comes with ``keep_prefix``, or what the parts refuse.
    """

    def __init__(
        self,
        vision: Mapping[str, Any],
        language: Mapping[str, Any],
        image_id: int,
        projector: str = "mlp",
        shuffle: int = 1,
        keep_prefix: bool = False,
        vocab_size: int | None = None,
        image_size: Any = None,
    ) -> None:
        super().__init__()
        if projector not in PROJECTORS:
            choices = ", ".join(PROJECTORS)
            raise ValueError(f"projector={projector!r} is unknown; choose one of: {choices}.")
        if image_id < 0:
            raise ValueError(f"image_id={image_id} must be a token's id, at least 0.")
        self.vision: ViT = made(tower(with_given(vision, "vision", ViT, image_size=image_size)))
        self.language: GPT = made(with_given(language, "language", GPT, vocab_size=vocab_size))
        self.image_size, self.config = self.vision.image_size, self.language.config
        self.image_id, self.shuffle, self.keep_prefix = image_id, shuffle, keep_prefix
        self.vocab_size = max(self.language.vocab_size, image_id + 1)
        self.check_size(self.image_size)
        if keep_prefix and shuffle > 1:
            raise ValueError(
                "keep_prefix=True gives tokens that shuffle cannot merge: take shuffle=1."
            )
        width, dim = self.vision.config.dim * shuffle**2, self.config.dim
        layers: list[nn.Module] = [nn.Linear(width, dim)]
        if projector == "mlp":
            layers += [nn.GELU(), nn.Linear(dim, dim)]
        self.projection = nn.Sequential(*layers)
        for layer in layers:
            if isinstance(layer, nn.Linear):
                init_linear(layer, self.config.init_std)

    def check_size(self, image_size: tuple[int, int]) -> None:
        """Whether pictures of a size have patches that merge.

        Raises:
            ValueError: they have not.
        """
        rows, columns = self.vision.grid(*image_size)
        if self.shuffle < 1 or rows % self.shuffle or columns % self.shuffle:
            raise ValueError(
                f"shuffle={self.shuffle} merges patches a side, and must divide {rows} x {columns} patches."
            )

    @property
    def slots(self) -> int:
        """Vectors of a picture of the ViT's own size."""
        rows, columns = self.vision.grid(*self.image_size)
        return rows * columns // self.shuffle**2 + self.vision.num_prefix_tokens * self.keep_prefix

    def encode(self, pixel_values: Tensor) -> Tensor:
        """``(pictures, channels, height, width) -> (pictures, slots, dim)``, as the GPT reads them."""
        x, prefix = self.vision.forward_features(pixel_values), self.vision.num_prefix_tokens
        if not self.keep_prefix:
            x = x[:, prefix:]
        if self.shuffle > 1:
            x = merged(x, self.vision.grid(*pixel_values.shape[-2:]), self.shuffle)
        return self.projection(x)

    def features(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
    ) -> Tensor:
        """``(batch, tokens, dim)``, what :meth:`logits` takes; arguments as :meth:`forward`'s."""
        vectors = Vectors(self.image_id, self.encode(pixel_values).flatten(0, 1))
        return self.language.features(input_ids, mask, documents=documents, vectors=vectors)

    def logits(self, features: Tensor) -> Tensor:
        """``(..., dim) -> (..., vocab)``."""
        return self.language.logits(features)

    def forward(
        self,
        pixel_values: Tensor,
        input_ids: Tensor,
        mask: Tensor | None = None,
        documents: Tensor | None = None,
        loss: TokenLoss | None = None,
    ) -> Tensor:
        """Logits ``(batch, tokens, vocab)`` of the token after each; or the loss that is asked for.

        Args:
            pixel_values: ``(pictures, channels, height, width)``, in the order in which their slots stand in
                the rows, one row after another.
            input_ids: ``(batch, tokens)``, with ``slots`` tokens ``image_id`` for each picture.
            mask: ``(batch, tokens)``, True = a token; padding may stand left or right.
            documents: ``(batch, tokens)``, see :meth:`GPT.forward`.

        Raises:
            ValueError: more or fewer slots than the pictures have vectors.
        """
        features = self.features(pixel_values, input_ids, mask, documents)
        return self.logits(features) if loss is None else self.language.loss(features, loss)

    def prefill(
        self,
        input_ids: Tensor,
        mask: Tensor | None,
        vectors: Tensor,
        *,
        capacity: int,
        branches: int = 1,
        spare: int = 0,
    ) -> tuple[Tensor, Cache]:
        """As :meth:`GPT.prefill`.

        Args:
            vectors: ``(batch, most slots of a row, dim)``, see :meth:`by_rows`.
        """
        counts = (input_ids == self.image_id).sum(1, keepdim=True)
        there = torch.arange(vectors.shape[1], device=vectors.device) < counts
        given = Vectors(self.image_id, vectors[there])
        room: Any = {"capacity": capacity, "branches": branches, "spare": spare}
        return self.language.prefill(input_ids, mask, given, **room)

    def decode(self, tokens: Tensor, cache: Cache) -> Tensor:
        """As :meth:`GPT.decode`."""
        return self.language.decode(tokens, cache)

    def by_rows(self, pixel_values: Tensor, input_ids: Tensor) -> Tensor:
        """The vectors of pictures by the rows that show them, ``(batch, most slots of a row, dim)``, filled
        at the right.

        Raises:
            ValueError: see :meth:`forward`.
        """
        vectors = self.encode(pixel_values).flatten(0, 1)
        counts = (input_ids == self.image_id).sum(1).tolist()
        if sum(counts) != len(vectors):
            raise ValueError(
                f"{len(pixel_values)} pictures have {len(vectors)} vectors, but the rows have "
                f"{sum(counts)} slots for them (tokens {self.image_id})."
            )
        return nn.utils.rnn.pad_sequence([*vectors.split(counts)], batch_first=True)

    def generate(
        self, pixel_values: Tensor, input_ids: Tensor, mask: Tensor | None = None, **options: Any
    ) -> Tensor:
        """Continue prompts with pictures: the new tokens ``(batch, at most max_new_tokens)``.

        Args:
            pixel_values, input_ids, mask: as :meth:`forward`'s.
            options: of :meth:`GPT.generate`. A text is always read from its begin on, as its pictures stand
                there: what outgrows ``config.longest`` is refused. A ``draft`` can be "prompt" alone.

        Raises:
            ValueError: another draft, and see :meth:`forward`.
        """
        if options.get("draft") not in (None, PROMPT):
            raise ValueError(
                f"no model can guess for a {type(self).__name__}, as none sees its pictures: draft must be "
                f'"{PROMPT}" or None.'
            )
        with torch.no_grad():
            vectors = self.by_rows(pixel_values, input_ids)
        words = input_ids != self.image_id  # nothing that is said counts them as repeated
        return search_or_sample(
            self,
            (input_ids, mask, vectors),
            prompt=input_ids,
            prompt_mask=words if mask is None else words & mask.bool(),
            begun=input_ids.shape[1],
            room=self.config.longest - input_ids.shape[1],
            **options,
        )


def merged(x: Tensor, grid: tuple[int, int], side: int) -> Tensor:
    """``side`` by ``side`` neighbours side by side in one vector: ``(batch, rows * columns, dim) ->
    (batch, rows * columns / side ** 2, side ** 2 * dim)``, row by row."""
    rows, columns = (count // side for count in grid)
    x = x.unflatten(1, (rows, side, columns, side)).transpose(2, 3)
    return x.flatten(3).reshape(x.shape[0], rows * columns, -1)


def with_given(
    described: Mapping[str, Any], part: str, kind: type[nn.Module], **given: Any
) -> tuple[type[nn.Module], dict[str, Any]]:
    """The class and arguments of a part, with those that are given beside its description.

    Raises:
        ValueError: it describes no member of this kind.
    """
    cls = member_named(described.get("class"))
    arguments = described.get("arguments")
    if cls is None or not issubclass(cls, kind) or not isinstance(arguments, Mapping):
        raise ValueError(
            f"{part} must be described as a {kind.__name__} is, by its class and its arguments, not "
            f"class={described.get('class')!r}."
        )
    found = copy.deepcopy(dict(arguments))
    return cls, {**found, **{name: value for name, value in given.items() if value is not None}}


def tower(given: tuple[type[nn.Module], dict[str, Any]]) -> tuple[type[nn.Module], dict[str, Any]]:
    """A ViT without what makes classes of its tokens; a norm after its pooling stands before it."""
    cls, arguments = given
    given_pool = placed(cls, arguments).get("pooling", {})
    kind = given_pool.get("kind", "class") if isinstance(given_pool, dict) else given_pool.kind
    usual = kind if kind == "class" else "mean"  # neither has weights
    pooling = {"kind": usual, "norm_after": False}
    return cls, {**placed(cls, arguments), "num_classes": 0, "pooling": pooling}


def made(part: tuple[type[nn.Module], dict[str, Any]]) -> Any:
    return build(*part)


@torch.no_grad()
def join_vision_language(vision: Any, language: Any, **options: Any) -> VisionLanguage:
    """A trained picture tower and a trained language model in one, with their weights, ready to learn the
    projection between them.

    ``tokenizer`` is the language model's with a special token ``<image>`` behind all others, ``preprocess``
    the picture tower's, ``generation`` the language model's.

    Args:
        vision: a ViT, or a model with one as its ``image``, such as a CLIP, or with one as its ``vision_tower()``,
            such as a Captioner.
        language: a GPT.
        options: ``projector``, ``shuffle`` and ``keep_prefix`` of :class:`VisionLanguage`.

    Raises:
        ValueError: other models, a language model without tokenizer, or what :class:`VisionLanguage` refuses.
    """
    has_tower = hasattr(vision, "vision_tower")
    eyes = vision.vision_tower() if has_tower else getattr(vision, "image", vision)
    for name, part, kind in (("vision", eyes, ViT), ("language", language, GPT)):
        if not isinstance(part, kind):
            raise ValueError(f"{name} must be a {kind.__name__}, not a {type(part).__name__}.")
    if language.tokenizer is None:
        raise ValueError("the language model has no tokenizer: set language.tokenizer.")
    tokenizer = with_image_token(language.tokenizer)
    image_id = image_id_of(tokenizer)
    model: Any = VisionLanguage(describe(eyes), describe(language), image_id, **options)
    late = {"pool.norm.": "transformer.norm."}
    theirs = {
        next((new + name[len(old) :] for old, new in late.items() if name.startswith(old)), name): w
        for name, w in eyes.state_dict().items()
    }
    model.vision.load_state_dict({name: theirs[name] for name in model.vision.state_dict()})
    model.language.load_state_dict(language.state_dict())
    model.tokenizer, model.preprocess = tokenizer, vision.preprocess
    model.generation = getattr(language, "generation", None)
    return model
