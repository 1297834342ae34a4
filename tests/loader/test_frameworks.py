"""Do Lightning and Accelerate train with a loader, and see each batch of each epoch once, also after a resume?"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import pytest

import mx8shards as mx8
from tests.batches import flat
from tests.loader.leak_checks import ids_of, write

torch = pytest.importorskip("torch")

SAMPLES, BATCH, EPOCHS = 101, 8, 3
STEPS = -(-SAMPLES // BATCH)

# ignore warnings of the frameworks: missing loggers, few workers, deprecated calls of torch
pytestmark = pytest.mark.filterwarnings("ignore")
needs_lightning = pytest.mark.skipif(importlib.util.find_spec("lightning") is None, reason="lightning is not installed")
needs_accelerate = pytest.mark.skipif(
    importlib.util.find_spec("accelerate") is None, reason="accelerate is not installed"
)


@pytest.fixture(autouse=True)
def _without_stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide the stubs that tests of mosaicml-streaming install: Lightning would take them for the packages."""
    for name, module in list(sys.modules.items()):
        if name.partition(".")[0] in ("torchvision", "transformers") and module.__spec__ and not module.__spec__.loader:
            monkeypatch.delitem(sys.modules, name)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("frameworks") / "data", SAMPLES)


def loader_of(data: Path, *, shuffle: bool = True, **options: Any) -> mx8.Loader:
    dataset = mx8.Dataset(data)
    return mx8.Loader(dataset, batch_size=BATCH, shuffle=shuffle, seed=3, memory="16mb", threads=1, **options)


@pytest.fixture(scope="module")
def epochs(data: Path) -> list[list[list[int]]]:
    """The sample_ids of each batch of each epoch."""
    with loader_of(data) as loader:
        return [[ids_of(batch) for batch in loader] for _ in range(EPOCHS)]


def plain(loader: mx8.Loader, workers: int) -> Any:
    return torch.utils.data.DataLoader(loader.as_iterable_dataset(), num_workers=workers)


# Lightning ------------------------------------------------------------------------------------------------------------


def model() -> Any:
    import lightning

    class Model(lightning.LightningModule):
        """Records the sample_ids it was given."""

        def __init__(self) -> None:
            super().__init__()
            self.layer = torch.nn.Linear(1, 1)
            self.seen: list[list[int]] = []
            self.validated: list[list[int]] = []

        def training_step(self, batch: Any, number: int) -> Any:
            assert number == len(self.seen) % STEPS or self.resumed
            self.seen.append(ids_of(batch))
            return self.layer(batch["number"].float()[:, None] / SAMPLES).square().mean()

        def validation_step(self, batch: Any, number: int) -> None:
            self.validated.append(ids_of(batch))
            self.log("loss", self.layer(batch["number"].float()[:, None]).mean(), batch_size=len(batch["number"]))

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

        resumed = False

    return Model()


def trainer(place: Path, **options: Any) -> Any:
    import lightning

    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu"}
    return lightning.Trainer(**quiet, enable_checkpointing=False, default_root_dir=place, max_epochs=EPOCHS, **options)


@needs_lightning
@pytest.mark.parametrize("workers", [None, 0, 2])
def test_lightning_trains_and_validates_with_loaders(
    data: Path, epochs: list[list[list[int]]], tmp_path: Path, workers: int | None
) -> None:
    training, validation = loader_of(data), loader_of(data, shuffle=False)
    given = [training, validation] if workers is None else [plain(each, workers) for each in (training, validation)]
    trained = model()
    trainer(tmp_path, num_sanity_val_steps=2).fit(trained, *given)
    assert trained.seen == flat(epochs)  # the sanity check of the validation used no training epoch
    in_order = [list(range(i, min(i + BATCH, SAMPLES))) for i in range(0, SAMPLES, BATCH)]
    assert trained.validated == in_order[:2] + in_order * EPOCHS
    training.close()
    validation.close()


@needs_lightning
@pytest.mark.parametrize("at", [STEPS + 5, 2 * STEPS])
def test_lightning_resumes_a_loader_in_the_middle_of_an_epoch(
    data: Path, epochs: list[list[list[int]]], tmp_path: Path, at: int
) -> None:
    import lightning

    class KilledError(Exception):
        pass

    class Kill(lightning.Callback):
        def on_train_batch_end(self, trainer: Any, *_: Any) -> None:
            if trainer.global_step == at:
                trainer.save_checkpoint(tmp_path / "checkpoint")
                raise KilledError

    first = model()
    with loader_of(data) as loader, pytest.raises(KilledError):
        trainer(tmp_path, callbacks=[Kill()]).fit(first, loader)
    second = model()
    second.resumed = True
    with loader_of(data) as loader:
        trainer(tmp_path).fit(second, loader, ckpt_path=tmp_path / "checkpoint", weights_only=False)
    assert len(first.seen) == at
    assert first.seen + second.seen == flat(epochs)


# Accelerate -----------------------------------------------------------------------------------------------------------


def accelerator(**options: Any) -> Any:
    from accelerate import Accelerator, DataLoaderConfiguration

    return Accelerator(cpu=True, dataloader_config=DataLoaderConfiguration(**options))


@needs_accelerate
@pytest.mark.parametrize("dispatch", [False, None])
@pytest.mark.parametrize("workers", [0, 2])
def test_accelerate_trains_with_a_data_loader(
    data: Path, epochs: list[list[list[int]]], workers: int, dispatch: bool | None
) -> None:
    accelerate = accelerator(dispatch_batches=dispatch)
    layer = torch.nn.Linear(1, 1)
    columns = ["blob", "number"] if dispatch is False else ["number"]  # ragged rows cannot be sliced and dispatched
    with loader_of(data, columns=columns) as loader:
        layer, optimizer, batches = accelerate.prepare(
            layer, torch.optim.SGD(layer.parameters(), lr=0.1), plain(loader, workers)
        )
        assert len(batches) == STEPS
        for epoch in range(EPOCHS):
            found = []
            for batch in batches:
                loss = layer(batch["number"].float()[:, None] / SAMPLES).square().mean()
                accelerate.backward(loss)
                optimizer.step()
                optimizer.zero_grad()
                assert hasattr(batch, "sample_ids") is (dispatch is False)  # dispatched batches are sliced and rebuilt
                found.append(batch["number"].tolist())
            assert found == epochs[epoch]


@needs_accelerate
def test_accelerate_resumes_where_its_epoch_is_set(data: Path, epochs: list[list[list[int]]]) -> None:
    with loader_of(data) as loader:
        for _ in range(2):
            for number, _ in enumerate(loader):
                if number == 4:
                    break
        state = loader.state_dict()
    with loader_of(data) as loader:
        loader.load_state_dict(state)
        batches = accelerator(dispatch_batches=False).prepare(plain(loader, 0))
        batches.set_epoch(1)
        assert [ids_of(batch) for batch in batches] == epochs[1][5:]
        assert [ids_of(batch) for batch in batches] == epochs[2]


@needs_accelerate
def test_accelerate_trains_with_a_plain_loader(data: Path, epochs: list[list[list[int]]]) -> None:
    from accelerate.utils import send_to_device

    accelerate = accelerator()
    with loader_of(data) as loader:
        assert accelerate.prepare(loader) is loader
        for batch, wanted in zip(loader, epochs[0], strict=True):
            moved = send_to_device(batch, "cpu", non_blocking=True)
            assert ids_of(moved) == moved.sample_ids.tolist() == wanted
            assert accelerate.gather_for_metrics(moved["number"]).tolist() == wanted
