"""Time of an epoch of reward training with a frozen encoder, against encoding every turn in every epoch."""

from time import perf_counter

import numpy as np
import torch
from reference import CONTEXT, reference_features
from transformers import Trainer

from geli_hf import GeliRewardArguments, GeliRewardModel, GeliRewardTrainer
from geli_hf.decomposition import geli_loss, li_loss, rrd_loss
from geli_hf.models.features import cached_turn_features
from geli_hf.sessions import assistant_turns

EPOCHS = 20


def test_an_epoch(pair, word_pieces, sample, tmp_path, benchmark):
    """Take a step per session on both sides, as published. Ours is from the second epoch on, with cached features."""
    sample = sample.select(range(8))
    args = GeliRewardArguments(
        tmp_path / "run",
        features_dir=tmp_path / "features",
        num_train_epochs=EPOCHS,
        per_device_train_batch_size=1,
        eval_strategy="no",
        save_strategy="no",
        load_best_model_at_end=False,
        logging_strategy="no",
        disable_tqdm=True,
        report_to="none",
    )
    model = GeliRewardModel.from_backbone(word_pieces, context_messages=CONTEXT)
    start = perf_counter()
    trainer = GeliRewardTrainer(model, args, sample)
    encoding = perf_counter() - start

    theirs = GeliRewardModel.from_backbone(word_pieces, context_messages=CONTEXT)
    theirs.score.standardise.load_state_dict(model.score.standardise.state_dict())
    optimizer = torch.optim.AdamW(theirs.score.parameters(), lr=args.learning_rate)
    scale, features = trainer.scale, []

    def reference():
        features.clear()
        for row in sample:
            turns = assistant_turns(row["messages"])
            vectors = torch.stack([reference_features(theirs, row["messages"][: turn + 1]) for turn in turns]).clone()
            features.append(vectors.numpy())
            mask = torch.ones(1, len(vectors), dtype=torch.bool)
            rewards = theirs(turn_features=vectors[None], turn_mask=mask).turn_rewards
            score = torch.tensor([(row["score"] - scale.score_mean) / scale.score_std])
            felt = (torch.tensor([row["feedback"]["affect"]]) - scale.feedback_mean) / scale.feedback_std
            geli_loss(rrd_loss(rewards, mask, score), li_loss(rewards, mask, felt), args.li_weight).backward()
            optimizer.step()
            optimizer.zero_grad()

    # Without the calibration, which our own `train` does once at its end.
    ratio = pair(lambda: Trainer.train(trainer), reference, rounds=2, scale=EPOCHS)
    first = encoding + benchmark.stats.stats.median / EPOCHS
    benchmark.extra_info |= {"epochs": EPOCHS, "first_epoch": first}
    turns = sum(map(len, features))
    print(f"\n{len(sample)} sessions, {turns} turns; our first epoch, with the encoding: {first:.2f} s")
    cache = cached_turn_features(model, sample, cache_dir=args.features_dir)
    for index, vectors in enumerate(features):
        np.testing.assert_allclose(cache[index], vectors, atol=1e-5)
    assert ratio >= 100
