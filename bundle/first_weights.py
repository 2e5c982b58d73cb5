"""The model before training: GPT-2, with four things put in that little text would be slow to teach.

Tried without them, two million tokens brought about no head that looks one token back, and so neither
induction nor the putting together of names. So positions begin as waves; two heads of block 0 begin as
heads that look one token back; and what a head of the first blocks writes begins as what it read
(its output matrix is its value matrix turned over, as in A. Trockman and J. Z. Kolter, "Mimetic
initialization of self-attention layers", 2023). Two heads of block 1 begin with a faint leaning towards
what followed the same token last time (a few hundredths of their attention, some four times an even
share). Without it copying was learnt too, but by heads that look one or two tokens further on, where a
looking-back head has put the wanted token; or, with only one-back heads, not within 900 steps. What any
other head looks at, and everything above, is learnt; and all of it is free to change. The later blocks
begin by writing nothing.
"""

import torch
from transformers import GPT2Config, GPT2LMHeadModel

HEAD = 32
CONTEXT = 512
SPREAD = 0.05  # of first weights: for narrow models GPT-2's .02 makes attention very nearly uniform
SHARPNESS = 2.5
WRITTEN, KEENNESS = 0.06, 2.5  # size of what looking-back heads write; of their partners' queries and keys
LOOKS_BACK = {(0, 0): 1, (0, 1): 1}  # (block, head): tokens


def new_model(width: int, layers: int, vocabulary: int, begun: int | None = None) -> GPT2LMHeadModel:
    """The first `begun` blocks write from the start, the others nothing yet (all write if it is not given).

    Heads of 32 dimensions; the exact tanh GELU of GPT-2, in the form that torch computes in one go.
    """
    config = GPT2Config(
        vocab_size=vocabulary,
        n_positions=CONTEXT,
        n_embd=width,
        n_layer=layers,
        n_head=width // HEAD,
        initializer_range=SPREAD,
        activation_function="gelu_pytorch_tanh",
        resid_pdrop=0.0,
        embd_pdrop=0.0,
        attn_pdrop=0.0,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = GPT2LMHeadModel(config)
    with torch.no_grad():
        model.transformer.wpe.weight.copy_(waves(width) * SPREAD)
        for (block, head), tokens in LOOKS_BACK.items():
            if block < layers and head < config.n_head:
                look_back(model.transformer.h[block].attn.c_attn.weight, head, tokens)
        for number, block in enumerate(model.transformer.h):
            if begun is not None and number >= begun:
                block.attn.c_proj.weight.zero_()
                block.mlp.c_proj.weight.zero_()
            else:
                block.attn.c_proj.weight.copy_(block.attn.c_attn.weight[:, 2 * width :].T)
        clear_the_way(model, quick_waves(width))
        if layers > 1 and width >= 4 * HEAD:  # narrower, there is no room to keep things apart
            read_what_followed(model, width)
    return model


def frequencies(width: int) -> torch.Tensor:
    return 1000 ** (-torch.arange(width // 2) / (width // 2))


def waves(width: int) -> torch.Tensor:
    """Sines, then cosines, of the position: from 6 to 6,000 tokens long, with a mean square of one."""
    at = torch.arange(CONTEXT)[:, None] * frequencies(width)
    return torch.cat([at.sin(), at.cos()], dim=1) * 2**0.5


def clear_the_way(model: GPT2LMHeadModel, waves_read: torch.Tensor) -> None:
    """Nothing but position, at first, where blocks 0 and 1 read it: else a token is its own best match."""
    first = model.transformer.h[0]
    for weight in (model.transformer.wte.weight, first.attn.c_proj.weight, first.mlp.c_proj.weight):
        weight[:, waves_read] = 0.0


def quick_waves(width: int) -> torch.Tensor:
    """The dimensions of the quickest waves: as many as a head reads."""
    sines = torch.arange(HEAD // 2)
    return torch.cat([sines, sines + width // 2])


def look_back(weight: torch.Tensor, head: int, tokens: int) -> None:
    """Queries and keys of one head made to meet where the key is so many tokens before the query.

    `weight` is [width, 3 x width]: queries, keys, values. The head reads the 16 quickest waves; its
    query is the wave as it was `tokens` ago, its key the wave as it is.
    """
    width, pairs = weight.shape[0], HEAD // 2
    angle = frequencies(width)[:pairs] * tokens
    sines, cosines = torch.arange(pairs), torch.arange(pairs) + width // 2
    query, key = torch.zeros(width, HEAD), torch.zeros(width, HEAD)
    first, second = torch.arange(pairs), torch.arange(pairs) + pairs
    key[sines, first] = key[cosines, second] = SHARPNESS
    query[sines, first], query[cosines, first] = SHARPNESS * angle.cos(), -SHARPNESS * angle.sin()
    query[cosines, second], query[sines, second] = SHARPNESS * angle.cos(), SHARPNESS * angle.sin()
    columns = slice(HEAD * head, HEAD * (head + 1))
    weight[:, :width][:, columns] = query
    weight[:, width : 2 * width][:, columns] = key


def read_what_followed(model: GPT2LMHeadModel, width: int) -> None:
    """Heads of block 1 made to lean towards places where the token before is the token they stand on.

    What a looking-back head of block 0 writes is kept apart from what it and its partner read, so that a
    token is not mistaken for one that follows it. The partner in block 1 takes as query what the head read
    of the token itself, and as key what the head wrote of the token before.
    """
    first, second = (model.transformer.h[block].attn for block in (0, 1))
    heads = [head for block, head in LOOKS_BACK if block == 0]
    columns = [slice(HEAD * head, HEAD * (head + 1)) for head in heads]
    values = [first.c_attn.weight[:, 2 * width :][:, chosen] for chosen in columns]
    waves_read = torch.zeros(width, HEAD)
    waves_read[quick_waves(width), torch.arange(HEAD)] = 1.0
    taken = torch.linalg.qr(torch.cat([*values, waves_read], dim=1)).Q
    for chosen, value in zip(columns, values, strict=True):
        written = torch.randn(HEAD, width) * WRITTEN
        written -= written @ taken @ taken.T
        first.c_proj.weight[chosen] = written
        second.c_attn.weight[:, :width][:, chosen] = value * KEENNESS
        second.c_attn.weight[:, width : 2 * width][:, chosen] = torch.linalg.pinv(written) * KEENNESS
