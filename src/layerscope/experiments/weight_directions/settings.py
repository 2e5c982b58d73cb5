"""Choices of `weight_directions`, and the names that its files share."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from layerscope.evidence.settings import Intervals

Kind = Literal["OV reads", "OV writes", "QK asks", "QK answers", "MLP reads", "MLP gates", "MLP writes"]
KINDS: tuple[Kind, ...] = (
    "OV reads",
    "OV writes",
    "QK asks",
    "QK answers",
    "MLP reads",
    "MLP gates",
    "MLP writes",
)
ATTENTION: tuple[Kind, ...] = KINDS[:4]
WRITES = ("OV writes", "MLP writes")
OWN, COMPANY, OTHER, LANGUAGE = "own embedding", "co-occurrence", "another embedding", "language model"
EMBEDDING_OF = "embedding:"
RATERS = (OWN, COMPANY, OTHER)
SINGULAR, ROTATED, RANDOM = "singular", "rotated", "random"
KNOWN_SET, MATCHED_SET, UNRELATED = "known set", "matched set", "unrelated tokens"
IN_WORDS = {"QK asks": "QK query side", "QK answers": "QK key side"}
"""Kinds that sentences and figures call otherwise than results do."""
SIGNS = ("+", "-")
SIDES = ("reads", "writes")
TOKENS_OF = dict(zip(SIDES, ("embedding", "unembedding"), strict=True))
"""By side of the vocabulary: what is read meets the embedding, what is written the unembedding."""


def kind_in_words(kind: object) -> str:
    """A kind of direction as sentences call it: "QK query side" for "QK asks"."""
    return IN_WORDS.get(str(kind), str(kind))


class Settings(Intervals):
    """What is decomposed, how directions are shown and rated, and what they are held against."""

    kinds: tuple[Kind, ...] = Field(
        KINDS,
        min_length=1,
        description="which sides of which matrices ('QK asks': the query side, 'QK answers': the key side); the post "
        "used 'OV writes', 'MLP reads', 'MLP writes'",
    )
    directions: int = Field(
        200,
        ge=1,
        description="leading directions for each layer and kind, shared out among heads or experts; the post "
        "rated 30, with a standard error of .09",
    )
    leading: float = Field(
        0.25,
        gt=0,
        le=1,
        description="of each matrix's singular directions at most this share: rotations inside all of them are "
        "only random directions again",
    )
    top_tokens: int = Field(15, ge=5, description="tokens kept at each end of a direction; the post's 15")
    fold_norms: bool = Field(
        False,
        description="multiply what reads by the norm before it, and the unembedding by the final norm; the post "
        "did not",
    )
    tokens_as: Literal["embedding", "after the first block"] = Field(
        "embedding",
        description="what is read is held against embeddings, or against the states in which the first layer leaves "
        "each token alone: what early layers meet where embeddings are tied",
    )
    pairs: int = Field(
        8, ge=0, description="pairs of tokens that each head's query-key form joins most; 0: none"
    )
    near: float = Field(
        1.02, ge=1, description="singular values within this ratio are one subspace, shown as one"
    )
    rotations: int = Field(
        64, ge=0, description="random rotations inside the leading directions, for each layer and kind"
    )
    random_directions: int = Field(
        1000, ge=100, description="random directions, for each side of the vocabulary"
    )
    untrained_layers: int = Field(
        2, ge=0, description="layers of the untrained twin that are decomposed; 0: none"
    )
    quantile: float = Field(
        0.95,
        gt=0.5,
        lt=1,
        description="a direction counts as coherent above this quantile of random directions",
    )
    rater: str = Field(
        "auto",
        description="the rater of the headline: 'own embedding', 'co-occurrence' (in the corpus), 'embedding:FOLDER' "
        "(another model's, by name or folder; tokens matched by text), 'language model'; auto: the first of "
        "co-occurrence and own embedding with power, which are both computed",
    )
    least_power: float = Field(
        0.5,
        ge=0,
        le=1,
        description="share of directions made of known token sets that a rater must detect to be used by auto",
    )
    known_sets: str = Field(
        "auto",
        description="a .json file of named sets of words, on which raters are calibrated; auto: the bundled English "
        "ones; empty: none",
    )
    set_draws: int = Field(4, ge=1, description="directions made of each known set at each size")
    tokens_by: Literal["cosine", "product"] = Field(
        "cosine",
        description="how a direction's top tokens are chosen: cosine with the token's vector less the mean, or the "
        "product with it (the post's), in which frequent and hardly trained tokens lead",
    )
    corpus: str = Field(
        "auto",
        description="passages for co-occurrence and frequency of tokens: a file or bundled set; empty: none",
    )
    tagged_corpus: str = Field(
        "auto", description="treebank for parts of speech of tokens: a file or bundled set; empty: none"
    )
    shortest_token: int = Field(
        2, ge=1, description="tokens with fewer characters (blanks not counted) are passed over"
    )
    megabytes: float = Field(256, gt=0, description="memory for scores of the vocabulary, in MB")
    search: str = Field(
        "", description="words to search directions for, separated by commas; empty: no search"
    )
    edits: int = Field(
        4, ge=0, description="most coherent written directions that are removed to see what changes"
    )
    edit_texts: int = Field(8, ge=2, description="texts on which a removal is measured")
    edit_tokens: int = Field(48, ge=4, description="tokens of each of them")
    rater_address: str = Field(
        "", description="OpenAI-compatible address such as http://127.0.0.1:8000/v1; empty: no language model"
    )
    rater_name: str = Field("", description="name of the language model at that address")
    rater_key: str = Field(
        "", description="environment variable that holds the key for that address; the key is never saved"
    )
    rater_directions: int = Field(
        30,
        ge=1,
        description="leading directions for each layer and kind that the language model rates; the post's",
    )
    rater_seconds: float = Field(60, gt=0, description="seconds to wait for one answer")
    resamples: int = Field(2000, gt=0, description="bootstrap resamples of sets, of matrices, and of texts")

    @property
    def other_embedding(self) -> str:
        """Name or folder of the other model whose embedding rates; empty: none."""
        return self.rater.removeprefix(EMBEDDING_OF) if self.rater.startswith(EMBEDDING_OF) else ""

    @field_validator("rater")
    @classmethod
    def _known_rater(cls, rater: str) -> str:
        known = ("auto", OWN, COMPANY, LANGUAGE)
        if rater in known or (rater.startswith(EMBEDDING_OF) and len(rater) > len(EMBEDDING_OF)):
            return rater
        raise ValueError(f"one of {', '.join(known)} or {EMBEDDING_OF}FOLDER")

    @field_validator("kinds")
    @classmethod
    def _each_once(cls, kinds: tuple[Kind, ...]) -> tuple[Kind, ...]:
        return tuple(kind for kind in KINDS if kind in kinds)
