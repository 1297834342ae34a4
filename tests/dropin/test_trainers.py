"""Do Lightning, and trainers that set the epoch, as Hugging Face's does, go on with the right epoch of a dataset?"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader

from mx8shards.streaming import StreamingDataLoader, StreamingDataset
from tests.loader.test_frameworks import _without_stubs  # noqa: F401 - a fixture, as Lightning looks at what is imported

pytestmark = pytest.mark.filterwarnings("ignore")  # of frameworks: missing loggers, few workers, deprecated calls

SAMPLES, BATCH, EPOCHS = 96, 8, 3
STEPS = SAMPLES // BATCH


def dataset_of(numbers: Path) -> StreamingDataset:
    return StreamingDataset(local=str(numbers / "a"), epoch_size=SAMPLES, batch_size=BATCH, shuffle=True)


def ids(batches: Any) -> list[list[int]]:
    return [batch["id"].tolist() for batch in batches]


@pytest.fixture(scope="module")
def epochs(numbers: Path) -> list[list[list[int]]]:
    dataset = dataset_of(numbers)
    return [ids(DataLoader(dataset, batch_size=BATCH)) for _ in range(EPOCHS + 1)]


# set_epoch ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("of_loader", [False, True])
def test_a_later_epoch_can_be_set(workers: int, of_loader: bool, numbers: Path, epochs: list[list[list[int]]]) -> None:
    dataset = dataset_of(numbers)
    loader = StreamingDataLoader(dataset, batch_size=BATCH, num_workers=workers, persistent_workers=workers > 0)
    set_epoch = loader.set_epoch if of_loader else dataset.set_epoch
    set_epoch(1)
    assert ids(loader) == epochs[1]
    set_epoch(3)
    assert ids(loader) == epochs[3]


def test_setting_each_epoch_in_turn_changes_nothing(numbers: Path, epochs: list[list[list[int]]]) -> None:
    dataset = dataset_of(numbers)
    for epoch in range(EPOCHS):
        dataset.set_epoch(epoch)
        assert ids(DataLoader(dataset, batch_size=BATCH)) == epochs[epoch]


@pytest.mark.parametrize("epoch", [0, 1], ids=["an earlier one, as Accelerate sets", "the epoch of the state"])
def test_a_loaded_state_is_kept_when_the_epoch_is_set(epoch: int, numbers: Path, epochs: list[list[list[int]]]) -> None:
    dataset = dataset_of(numbers)
    dataset.load_state_dict({"epoch": 1, "sample_in_epoch": 40, "num_canonical_nodes": 1, "shuffle_seed": 9176})
    dataset.set_epoch(epoch)
    assert ids(DataLoader(dataset, batch_size=BATCH)) == epochs[1][5:]
    dataset.set_epoch(epoch + 1)
    assert ids(DataLoader(dataset, batch_size=BATCH)) == epochs[2]


@pytest.mark.skipif(importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed")
def test_a_prepared_dataloader_goes_on_with_the_epoch_that_is_set(numbers: Path, epochs: list[list[list[int]]]) -> None:
    from accelerate import Accelerator, skip_first_batches

    batches = Accelerator(cpu=True).prepare(DataLoader(dataset_of(numbers), batch_size=BATCH))
    resumed = skip_first_batches(batches, 5)  # these calls are those of Hugging Face's Trainer
    resumed.set_epoch(1)
    assert ids(resumed) == epochs[1][5:]
    batches.set_epoch(2)
    assert ids(batches) == epochs[2]


# Lightning ------------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
@pytest.mark.parametrize(("native", "workers"), [(False, 0), (False, 2), (True, 0)])
@pytest.mark.parametrize("every", [None, STEPS - 4, STEPS])
def test_lightning_goes_on_from_a_checkpoint(
    every: int | None, native: bool, workers: int, numbers: Path, epochs: list[list[list[int]]], tmp_path: Path
) -> None:
    import lightning

    class Data(lightning.LightningDataModule):
        def train_dataloader(self) -> Any:
            dataset = dataset_of(numbers)
            if not native:
                return StreamingDataLoader(dataset, BATCH, num_workers=workers)
            loader = dataset.loader(memory="16mb", threads=1)
            loader.set_epoch(self.trainer.fit_loop.epoch_progress.current.processed)  # as in docs/loader.md
            return loader

    class Model(lightning.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[list[int]] = []

        def training_step(self, batch: Any, number: int) -> Any:
            self.seen.append(batch["id"].tolist())
            return self.layer(batch["id"].float()[:, None] / SAMPLES).square().mean()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    def train(model: Any, **options: Any) -> list[list[int]]:
        quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
        checkpoint = options.pop("ckpt_path", None)
        trainer = lightning.Trainer(**quiet, max_epochs=EPOCHS, default_root_dir=tmp_path, **options)
        trainer.fit(model, datamodule=Data(), ckpt_path=checkpoint, weights_only=False)
        return model.seen

    # by default a checkpoint is saved at the end of each epoch, after its last batch with `every` steps
    saved = lightning.pytorch.callbacks.ModelCheckpoint(tmp_path, save_top_k=-1, every_n_train_steps=every)
    whole = train(Model(), callbacks=[saved])
    assert whole == [batch for epoch in epochs[:EPOCHS] for batch in epoch]
    checkpoint = tmp_path / f"epoch=1-step={2 * (every or STEPS)}.ckpt"
    assert train(Model(), enable_checkpointing=False, ckpt_path=checkpoint) == whole[2 * (every or STEPS) :]
