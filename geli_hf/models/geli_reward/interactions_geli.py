"""Features of how a turn fits its dialogue. Travels with every checkpoint.

Ratings of whole sessions teach little about fit, since in real sessions nearly every turn fits. These features make it
visible to a head: products and distances of two sentence embeddings are the usual inputs of a classifier of sentence
pairs (Conneau et al., EMNLP 2017, arXiv 1705.02364), and cosines tell an echo or a repetition.
"""

from collections.abc import Sequence

import torch
from torch.nn.functional import normalize

ANSWERS = -2  # place of the feature that is 1 where a message comes before the turn
RECENT = 4  # messages before the last one that make the topic


def interaction_features(states: torch.Tensor, assistant: Sequence[bool], turns: Sequence[int]) -> torch.Tensor:
    """Compute how turns fit the messages before them.

    With a, u and c the embeddings of the turn, of the message before it, and of the topic, which is the mean of up to
    four messages before u:

    Args:
        states: (messages, hidden), the embedding of each message of a dialogue, encoded alone, of length 1.
        assistant: of each message, whether the assistant wrote it.
        turns: indices of the assistant's messages that are wanted.

    Returns:
        (turns, 3 hidden + 6): `u * a`, `|u - a|`, `c * a`; the cosines of a with c and u, the largest of a with the
        assistant's messages before, and with the user's before u; and 1 where there is u, and where the assistant
        spoke before. What has no message to compare is 0.
    """
    wanted = torch.tensor(turns, device=states.device)[:, None]
    place = torch.arange(len(states), device=states.device)
    own = torch.tensor(assistant, device=states.device)
    turn, cosines = states[wanted[:, 0]], states[wanted[:, 0]] @ states.T
    before = (place == wanted - 1).to(states.dtype) @ states
    topic = normalize(((place < wanted - 1) & (place >= wanted - 1 - RECENT)).to(states.dtype) @ states, dim=1)
    spoken, heard = own & (place < wanted), ~own & (place < wanted - 1)

    def largest(compared: torch.Tensor) -> torch.Tensor:
        return torch.where(compared.any(1), cosines.masked_fill(~compared, -1.0).max(1).values, 0.0)

    numbers = ((topic * turn).sum(1), (before * turn).sum(1), largest(spoken), largest(heard))
    known = ((wanted[:, 0] > 0).to(states.dtype), spoken.any(1).to(states.dtype))
    distance = (before - turn).abs() * known[0][:, None]
    return torch.cat([before * turn, distance, topic * turn, torch.stack([*numbers, *known], 1)], 1)
