"""Features of how a turn fits its dialogue. Travels with every checkpoint.

Ratings of whole sessions teach little about fit, since in real sessions nearly every turn fits. These features make it
visible to a head: products and distances of two sentence embeddings are the usual inputs of a classifier of sentence
pairs (Conneau et al., EMNLP 2017, arXiv 1705.02364), and cosines tell an echo or a repetition.
"""

from collections.abc import Sequence

import torch


def interaction_features(states: torch.Tensor, assistant: Sequence[bool], turns: Sequence[int]) -> torch.Tensor:
    """Compute how turns fit the messages before them.

    Args:
        states: (messages, hidden), the embedding of each message of a dialogue, encoded alone, of length 1.
        assistant: of each message, whether the assistant wrote it.
        turns: indices of the assistant's messages that are wanted.

    Returns:
        (turns, 2 hidden + 5): with a and u the embeddings of the turn and of the message before it, `u * a`,
        `|u - a|`, the cosine of u and a, the largest cosines of a with the assistant's messages before and with the
        user's before u, and 1 where there is u, and where there is an earlier message of the assistant. What has no
        message to compare is 0.
    """
    wanted = torch.tensor(turns, device=states.device)
    place = torch.arange(len(states), device=states.device)
    own = torch.tensor(assistant, device=states.device)
    turn = states[wanted]
    before = torch.where((wanted > 0)[:, None], states[(wanted - 1).clamp(min=0)], 0.0)
    cosines = turn @ states.T

    def largest(compared: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        some = compared.any(1)
        return torch.where(some, cosines.masked_fill(~compared, -1.0).max(1).values, 0.0), some

    repeated, spoken = largest(own & (place < wanted[:, None]))
    answered_before, _ = largest(~own & (place < wanted[:, None] - 1))
    numbers = ((before * turn).sum(1), repeated, answered_before, (wanted > 0).float(), spoken.float())
    numbers = torch.stack([number.to(states.dtype) for number in numbers], 1)
    return torch.cat([before * turn, (before - turn).abs() * (wanted > 0)[:, None], numbers], 1)
