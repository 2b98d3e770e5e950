"""The describe node: an image embedding to a caption."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ..unclip_core import pipelines
from ..unclip_core.embedding.describe import Describer, Description
from ..unclip_core.embedding.phrase_lists import BUILT_IN, Phrases, parse_phrases, read_phrases
from ..unclip_core.models import Clip
from . import defaults, files, host, inputs, sockets
from .inputs import InputError
from .sockets import EmbeddingValue, PartValue

AUTOMATIC = "automatic"
SUFFIX = ".txt"
UNKNOWN_SHOWN = 8


def phrase_names() -> list[str]:
    """List the choices: automatic, the phrase lists that ship, and the text files of the input folder."""
    return [AUTOMATIC, *BUILT_IN, *files.among_inputs(SUFFIX)]


def check_phrases(name: Any) -> Path | None:
    """Return the file of the phrase list called `name`; None for the automatic one.

    Raises:
        InputError: there is none.
    """
    if name == AUTOMATIC:
        return None
    if name in BUILT_IN:
        return BUILT_IN[name]
    if isinstance(name, str) and name in phrase_names():
        return next(root / name for root in host.input_folders() if (root / name).is_file())
    raise InputError(f"There is no phrase list {name!r}. There are: {', '.join(phrase_names())}.")


class UnclipDescribe:
    """Node: image embeddings to captions, by the similarity of phrases."""

    ID = "UnclipDescribe"
    DISPLAY_NAME = "CLIP Describe (unCLIP)"
    CATEGORY = "unCLIP/embedding"
    DESCRIPTION = (
        "Says what an image shows: ranks the phrases of a list by CLIP's similarity with its embedding, and puts the "
        "best together into a caption."
    )
    SEARCH_ALIASES = ["caption", "interrogate", "image to text", "describe", "zero-shot"]
    RETURN_TYPES = ("STRING", "STRING")
    RETURN_NAMES = ("caption", "scores")
    OUTPUT_TOOLTIPS = (
        "The best caption; of several embeddings one a line.",
        "The best captions with their scores, and the best phrases for each place in the caption.",
    )
    FUNCTION = "run"
    OUTPUT_NODE = True
    HAS_INTERMEDIATE_OUTPUT = True
    VALIDATE_INPUTS = inputs.checking(phrases=check_phrases)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        """The inputs in their released order; the list is read anew at every refresh."""
        return {
            "required": {
                "clip": (sockets.CLIP, {"tooltip": "The CLIP of Load unCLIP Model."}),
                "embedding": (sockets.EMBEDDING, {"tooltip": "What to describe, one or a batch."}),
                "phrases": (
                    phrase_names(),
                    {
                        "default": AUTOMATIC,
                        "tooltip": "What there is to say: things or world for the bundled models, pictures for CLIPs "
                        "that know more, or a text file of the input folder.",
                    },
                ),
                "top_k": inputs.int_widget(
                    defaults.TOP_K, 1, defaults.TOP_K_MAX, "How many captions, and phrases for each place, to list."
                ),
                "custom": (
                    "STRING",
                    {
                        "default": "",
                        "multiline": True,
                        "tooltip": "A phrase list of your own, in place of 'phrases': see the help page. Empty: none.",
                    },
                ),
            }
        }

    @classmethod
    def IS_CHANGED(
        cls,
        phrases: str | None = AUTOMATIC,
        custom: str | None = "",
        top_k: int | None = defaults.TOP_K,
        clip: Any = None,
        embedding: Any = None,
    ) -> str:
        """Return another value once the file has another size or time: ComfyUI then runs the node again.

        Empty for lists that ship, where `custom` is used, and for a name that comes over a link (None).
        """
        if phrases is None or phrases in (AUTOMATIC, *BUILT_IN) or (custom or "").strip():
            return ""
        return files.size_and_time(check_phrases(phrases))

    def run(
        self,
        clip: PartValue[Clip],
        embedding: EmbeddingValue,
        phrases: str = AUTOMATIC,
        top_k: int = defaults.TOP_K,
        custom: str = "",
    ) -> dict[str, Any]:
        """Describe `B` embeddings, a caption each."""
        sockets.require_family(embedding, "embedding", clip.family, "CLIP")
        top_k = inputs.check_int("top_k", top_k, 1, defaults.TOP_K_MAX)
        chosen = choose(phrases, inputs.check_text("custom", custom), clip.part)
        with host.loaded(clip) as part, host.progress(len(embedding.embeds), "Describe") as bar:
            describer = Describer(partial(encode, part), chosen)
            told = []
            for row in embedding.embeds:
                told.append(describer.describe(row, top_k))
                bar.advance()
        captions = "\n".join(each.caption.text for each in told)
        text = "\n\n".join(description_text(each) for each in told)
        return host.with_text((captions, text), "\n".join([*unknown_words_note(clip.part, chosen), text]))


def encode(clip: Clip, texts: Sequence[str]) -> Tensor:
    """Encode `B` captions, fewer at a time where memory runs out, to their embeddings `[B, D]` on the CPU."""

    def attempt(chunks: Sequence[slice]) -> Tensor:
        return torch.cat([pipelines.embed_text(clip, texts[rows]).cpu() for rows in chunks])

    return host.halving(attempt, len(texts), len(texts), "Describe")


def unknown_words_note(clip: Clip, phrases: Phrases) -> list[str]:
    """Return a line about the words of a phrase list that are not in the model's vocabulary, if there are some."""
    unknown = clip.adapter.unknown_words(" ".join(phrase for each in phrases.options.values() for phrase in each))
    if not unknown:
        return []
    shown = ", ".join(f"'{word}'" for word in unknown[:UNKNOWN_SHOWN]) + (" …" if unknown[UNKNOWN_SHOWN:] else "")
    return [
        f"The '{clip.family}' model has never seen {len(unknown)} of the words of this list, and reads past them: "
        f"{shown}"
    ]


def description_text(description: Description) -> str:
    """Write out a description's captions and alternatives, with their scores."""
    lines = [f"{choice.score:.3f}  {choice.text}" for choice in description.captions]
    for slot, choices in description.alternatives.items():
        lines.append(f"{slot}: " + " · ".join(f"{choice.text} {choice.score:.3f}" for choice in choices))
    return "\n".join(lines)


def choose(name: str, custom: str, clip: Clip) -> Phrases:
    """Read the phrase list to use: `custom` if there is one, else the one called `name`.

    Args:
        clip: whose vocabulary the automatic choice depends on.

    Raises:
        InputError: there is no list of that name.
        PhraseError: it is no phrase list.
    """
    if custom.strip():
        return parse_phrases(custom, "'custom'")
    return read_phrases(check_phrases(name) or BUILT_IN[fitting_list(clip)])


def fitting_list(clip: Clip) -> str:
    """The name of the list that goes with a CLIP: of a closed vocabulary "things" if it knows most of them."""
    if not clip.adapter.words:
        return "pictures"
    things = read_phrases(BUILT_IN["things"]).options["thing"][::16]
    known = sum(not clip.adapter.unknown_words(thing) for thing in things)
    return "things" if 2 * known > len(things) else "world"
