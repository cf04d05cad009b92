"""One of several processes that score a batch of sessions: `torchrun session_process.py POLICY FOLDER`."""

import json
import os
import sys
from pathlib import Path

import torch
from test_session_grpo import Scripted, make_trainer, scored, words

from geli_hf.alignment import Answer


class LeavesEarlierElsewhere(Scripted):
    """Leaves after one turn in the first process and after two in the second; breaks a session of the first."""

    def answer(self, dialogues, seeds):
        rank = int(os.environ["RANK"])
        self.leaves_after = rank
        answers = super().answer(dialogues, seeds)
        return [Answer("", broken="gone"), *answers[1:]] if rank == 0 else answers


if __name__ == "__main__":
    policy, folder = sys.argv[1:]
    trainer = make_trainer(
        policy, Path(folder) / "trainer", LeavesEarlierElsewhere("Okay."), per_device_train_batch_size=2, use_cpu=True
    )
    output, rows = scored(trainer)
    rollouts = [row["rollout"] for row in rows]
    told = {
        "world": trainer.accelerator.num_processes,
        "prompts": [row["prompt"] for row in rows],
        "rewards": [[] if rollout.broken else words([rollout])[0] for rollout in rollouts],
        "token_turns": [rollout.token_turns for rollout in rollouts],
        "advantages": output["advantages"].tolist(),
    }
    Path(folder, f"process-{os.environ['RANK']}.json").write_text(json.dumps(told))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()
    # Threads of torch's that outlive their group have once ended a process that was only leaving.
    sys.stdout.flush()
    os._exit(0)
