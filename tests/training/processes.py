"""Trains a reward model as each case of `test_several_processes.py` says; torchrun runs this in several processes.

The arguments are the folder of a backbone, a JSON file of the cases and the folder to write to.
"""

import json
import os
import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1]))  # as pytest does

import torch
from toy import NAN, toy_sessions, with_column

from geli_hf import GeliRewardModel
from geli_hf.training import GeliRewardArguments, GeliRewardTrainer

GLOBAL_BATCH = 8


def sessions_of(count: int, seed: int):
    """Sessions of which the first half is watched and the second is not, so that batches differ in what they count."""
    sessions = toy_sessions(count, seed=seed)
    unseen = [
        feedback | {"affect": [NAN] * len(feedback["affect"])} if index >= count // 2 else feedback
        for index, feedback in enumerate(sessions["feedback"])
    ]
    return with_column(sessions, "feedback", unseen)


def trainer_of(backbone: str, case: dict, folder: Path, processes: int) -> GeliRewardTrainer:
    torch.manual_seed(0)
    model = GeliRewardModel.from_backbone(backbone, **case["model"])
    torch.nn.init.normal_(model.score.out.weight, std=0.3)  # a new one is 0
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):  # whose masks are each process's own
            module.p = 0.0
    args = GeliRewardArguments(
        str(folder / "checkpoints"),
        features_dir=str(folder / "features"),
        per_device_train_batch_size=GLOBAL_BATCH // processes,
        per_device_eval_batch_size=6 // processes,
        save_total_limit=None,
        use_cpu=True,
        report_to="none",
        disable_tqdm=True,
        **case["training"],
    )
    return GeliRewardTrainer(model, args, sessions_of(case["sessions"], seed=0), sessions_of(case["held_out"], seed=1))


def train(backbone: str, case: dict, folder: Path, processes: int) -> None:
    """Leave `model/` in the folder and, of each process, `process-<rank>.json`."""
    encoded, encode = [], GeliRewardModel.encode_turns
    GeliRewardModel.encode_turns = lambda self, *args, **kwargs: encoded.append(1) or encode(self, *args, **kwargs)
    try:
        trainer = trainer_of(backbone, case, folder, processes)
        calls = len(encoded)  # of the constructor: with a frozen backbone, what was cached
    finally:
        GeliRewardModel.encode_turns = encode
    trainer.train()
    seen = {"world": trainer.accelerator.num_processes, "calls": calls, "best": trainer.state.best_global_step}
    seen["steps"], seen["history"] = trainer.state.global_step, history(trainer)
    if "resume_at" in case:
        resumed = trainer_of(backbone, case, folder, processes)
        resumed.train(resume_from_checkpoint=str(folder / "checkpoints" / f"checkpoint-{case['resume_at']}"))
        weights, others = trainer.reward_model.state_dict(), resumed.reward_model.state_dict()
        alike = all(torch.equal(weights[name], others[name]) for name in weights)
        seen["resumed alike"] = alike and history(resumed) == history(trainer)
    (folder / f"process-{trainer.args.process_index}.json").write_text(json.dumps(seen))
    if trainer.is_world_process_zero():
        trainer.reward_model.save_pretrained(folder / "model")


def history(trainer: GeliRewardTrainer) -> list[dict]:
    """Return the logged values without the times."""
    logged = [entry for entry in trainer.state.log_history if "train_runtime" not in entry]
    return [
        {key: value for key, value in entry.items() if not key.endswith(("_runtime", "_per_second", "_time"))}
        for entry in logged
    ]


def main(backbone: str, cases: Path, folder: Path) -> None:
    torch.set_num_threads(1)
    for name, case in json.loads(cases.read_text()).items():
        (folder / name).mkdir(parents=True, exist_ok=True)
        train(backbone, case, folder / name, int(os.environ.get("WORLD_SIZE", 1)))


if __name__ == "__main__":
    if "WORLD_SIZE" in os.environ:  # under a launcher
        torch.distributed.init_process_group("gloo")
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
    if torch.distributed.is_initialized():
        torch.distributed.barrier()  # the first one writes the model when the other has nothing left to do
        torch.distributed.destroy_process_group()
        # Threads of torch's that outlive their group have once ended a process that was only leaving.
        sys.stdout.flush()
        os._exit(0)
