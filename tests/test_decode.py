from __future__ import annotations

import io
import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from seval import build, evaluate, train
from seval.data import augment, hdf5, splits
from seval.data.decode import CHUNK, Decoder, decode
from seval.data.image_set import ImageSet, Part
from seval.data.loader import Images, Loader, Streamed
from seval.errors import ConfigError, DataError
from tests.settings import ROOT, small
from tests.standins import TINY, Jpegs, write_jpegs

SIDE, CROP = 36, 32
CPU = torch.device("cpu")
FEW = [
    "DATASET.NUM_VALID", 20, "DATASET.NUM_TEST", 4, "DATASET.TINY.NUM_LABELED_HEAD", 12,
    "DATASET.TINY.NUM_UNLABELED_HEAD", 16, "DATASET.DECODED_SIZE", SIDE, "DATASET.CROP", CROP,
]  # fmt: skip


@pytest.fixture(scope="module")
def tiny() -> ImageSet:
    return hdf5.read(TINY)


@pytest.fixture(scope="module")
def encoded(tiny, tmp_path_factory) -> ImageSet:
    """30 training and 5 test images of every class, as JPEG files of several shapes."""
    folder, parts = tmp_path_factory.mktemp("encoded"), {}
    for name, count in (("train", 30), ("test", 5)):
        images, labels = tiny.parts[name][:2]
        chosen = np.concatenate([np.flatnonzero(labels == c)[:count] for c in range(tiny.num_classes)])
        parts[name] = Part(write_jpegs(folder / name, images[chosen]), labels[chosen])
    return tiny._replace(**parts, mean=tiny.mean * 3, std=tiny.std * 3)


@pytest.fixture(scope="module")
def decoders():
    """One for each number of workers, so that the processes start only once."""
    return {workers: Decoder(SIDE, workers) for workers in (0, 1, 2)}


def slowly(source: Jpegs, index) -> np.ndarray:
    """What the published pipeline does: open, resize, to array, one image after another."""
    images = []
    for i in index:
        image = Image.open(source.path / f"{i}.jpg").convert("RGB").resize((SIDE, SIDE), Image.Resampling.BILINEAR)
        images.append(np.array(image).transpose(2, 0, 1))
    return np.stack(images)


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_batches_equal_a_slow_loop_in_order(workers, encoded, decoders):
    source = encoded.train.images
    rng = np.random.default_rng(0)
    batches = [rng.integers(len(source), size=size) for size in (1, 5, 2 * CHUNK + 3, 5, 7)]
    for index, images in zip(batches, decoders[workers].stream(source, batches), strict=True):
        assert images.dtype == np.uint8 and images.flags.writeable
        np.testing.assert_array_equal(images, slowly(source, index))


def test_every_kind_of_file_becomes_rgb():
    gray = np.add.outer(np.arange(40), np.arange(30)).astype(np.uint8)
    for mode in ("L", "RGB", "CMYK"):
        buffer = io.BytesIO()
        Image.fromarray(gray).convert(mode).save(buffer, "jpeg", quality=95)
        image = decode(buffer.getvalue(), 20)
        assert image.shape == (3, 20, 20) and abs(image.astype(int) - image[:1]).max() <= 3


def loader(encoded, decoder: Decoder | None, seed: int = 0) -> Loader:
    """Of 100 labeled and 150 unlabeled images; without a decoder from memory."""
    source, labels = encoded.train[:2]
    splits = []
    for index in (np.arange(0, 300, 3), np.arange(1, 300, 2)):
        pixels = Streamed(source, index, decoder, CPU, CROP) if decoder else torch.from_numpy(slowly(source, index))
        splits.append(Images(pixels, torch.from_numpy(labels[index])))
    statistics = torch.tensor(encoded.mean), torch.tensor(encoded.std)
    return Loader(*splits, ("weak", "strong"), 8, 3, *statistics, seed, crop=CROP)


def same(one, other) -> bool:
    return all(
        torch.equal(a, b)
        for a, b in zip((*one[:2], *one.views, one.index), (*other[:2], *other.views, other.index), strict=True)
    )


@pytest.mark.parametrize("workers", [0, 1, 2])
def test_streamed_batches_equal_those_from_memory(workers, encoded, decoders):
    memory, streamed = loader(encoded, None), loader(encoded, decoders[workers])
    for _ in range(20):  # more than an epoch of either
        batch = next(streamed)
        assert batch.images.shape == (8, 3, CROP, CROP) and batch.views[1].shape == (24, 3, CROP, CROP)
        assert same(batch, next(memory))


@pytest.mark.parametrize("workers", [0, 2])
def test_the_state_is_that_of_the_batches_consumed(workers, encoded, decoders):
    memory, streamed, resumed = (loader(encoded, d) for d in (None, decoders[workers], decoders[workers]))
    for _ in range(7):
        next(memory), next(streamed)
    state = streamed.state_dict()
    for name, stream in memory.state_dict()["streams"].items():
        assert all(torch.equal(stream[key], state["streams"][name][key]) for key in stream)
    rest = [next(streamed) for _ in range(8)]
    next(resumed), next(resumed)  # what was read ahead must be forgotten
    for each in (resumed, streamed):
        each.load_state_dict(state)
        assert all(same(next(each), batch) for batch in rest)


@pytest.mark.parametrize("workers", [0, 2])
def test_selected_images_follow_the_labeled_ones(workers, encoded, decoders):
    source, labels = encoded.train[:2]
    labeled, unlabeled = np.arange(0, 300, 3), np.arange(1, 300, 2)
    selected, guessed = np.array([140, 3, 77]), np.array([9, 0, 4])
    images = [
        Images(Streamed(part, index, decoders[workers], CPU, CROP), torch.from_numpy(part_labels[index]))
        for part, index, part_labels in ((source, labeled, labels), (source, unlabeled, labels))
    ]
    joined = build.with_selected(*images, {"selected": selected, "selected_labels": guessed})
    assert len(joined.images) == 103 and joined.labels.tolist() == [*labels[labeled], 9, 0, 4]
    batches = [torch.tensor([100, 5, 101]), torch.tensor([102, 99])]
    wanted = [unlabeled[140], labeled[5], unlabeled[3], unlabeled[77], labeled[99]]
    assert np.array_equal(np.concatenate(list(joined.images.batches(batches))), slowly(source, wanted))


@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_views_are_the_central_crops_in_order(workers, encoded, decoders):
    source, index = encoded.test.images, np.arange(49, 0, -2)
    expected = torch.from_numpy(slowly(source, index))[..., 2:-2, 2:-2]
    for resolution in (0, 16):
        parts = list(Streamed(source, index, decoders[workers], CPU, CROP, resolution).split(10))
        assert [len(part) for part in parts] == [10, 10, 5]
        assert torch.equal(torch.cat(parts), augment.resize(expected, resolution))


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("damage", ["truncated", "not a picture", "absent"])
def test_a_damaged_image_is_named(damage, workers, encoded, decoders, tmp_path):
    source = Jpegs(tmp_path / damage, 4)
    source.path.mkdir()
    for i in range(4):
        (source.path / f"{i}.jpg").write_bytes(encoded.train.images.read(i))
    if damage == "absent":
        (source.path / "2.jpg").unlink()
    else:
        whole = encoded.train.images.read(2)
        (source.path / "2.jpg").write_bytes(whole[: len(whole) // 2] if damage == "truncated" else b"not a picture")
    stream = decoders[workers].stream(source, [[0, 1], [3, 2]])
    next(stream)
    with pytest.raises(DataError, match=f"^image 2 of {source.path} cannot be decoded .*; write that file") as error:
        next(stream)
    assert "\n" not in str(error.value)


def test_a_killed_worker_is_an_error(encoded):
    decoder = Decoder(SIDE, 1)
    decoder.submit(encoded.train.images, [0])()
    waiting = decoder.submit(encoded.train.images, range(300))
    os.kill(next(iter(decoder._pool._processes)), signal.SIGKILL)
    with pytest.raises(ChildProcessError, match="lower RUNTIME.WORKERS"):
        waiting()


def test_workers_end_with_a_killed_parent(encoded, tmp_path):
    """And they import no PyTorch: the parent of this test does not either, or it would be slow."""
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(encoded.train.images))
    program = f"""
import os, pickle, signal, sys
from pathlib import Path
from seval.data.decode import Decoder
if __name__ == "__main__":
    decoder = Decoder({SIDE}, 2)
    source = pickle.loads(Path({str(tmp_path / "source.pickle")!r}).read_bytes())
    decoder.submit(source, range(40))()
    assert "torch" not in sys.modules
    print(*decoder._pool._processes, flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
"""
    (tmp_path / "parent.py").write_text(program)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "parent.py")], stdout=subprocess.PIPE, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.returncode == -signal.SIGKILL
    workers = done.stdout.split()
    deadline = time.monotonic() + 20
    while running := [pid for pid in map(int, workers) if _runs(pid)]:
        assert time.monotonic() < deadline, f"{running} outlive their parent"
        time.sleep(0.02)
    assert workers


def test_what_a_scheduler_sends_to_every_process_of_a_job_disturbs_no_worker(encoded, tmp_path):
    """Nor the processes behind them; and a pool that is broken still ends at once."""
    (tmp_path / "source.pickle").write_bytes(pickle.dumps(encoded.train.images))
    program = f"""
import os, pickle, signal, sys, time
from contextlib import suppress
from pathlib import Path
from seval.data.decode import Decoder
from seval.signals import ASKING

def descendants(pid):
    children = [int(p) for p in Path(f"/proc/{{pid}}/task/{{pid}}/children").read_text().split()]
    return children + [p for child in children for p in descendants(child)]

if __name__ == "__main__":
    source, decoder = pickle.loads(Path({str(tmp_path / "source.pickle")!r}).read_bytes()), Decoder({SIDE}, 2)
    for number in ASKING:
        signal.signal(number, lambda *_: None)
    sender = os.fork()
    if not sender:  # another process than the one that the workers work for
        while os.getppid() != 1 and not Path({str(tmp_path / "over")!r}).exists():
            with suppress(ProcessLookupError, FileNotFoundError):  # one that ended meanwhile
                for pid in [os.getppid(), *descendants(os.getppid())]:
                    if pid != os.getpid():
                        for number in ASKING:
                            os.kill(pid, number)
            time.sleep(0.01)
        os._exit(0)
    def decode():
        return sum(int(images.sum()) for images in decoder.stream(source, [range(40)] * 20))
    decode(), print(decode(), flush=True)
    Path({str(tmp_path / "over")!r}).touch()
    os.waitpid(sender, 0)
    assert len(descendants(os.getpid())) == 4  # the tracker of resources, the server of processes, two workers
    os.kill(next(iter(decoder._pool._processes)), signal.SIGKILL)
    try:
        decode()
    except ChildProcessError as error:
        print(error)
"""
    (tmp_path / "parent.py").write_text(program)
    path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
    done = subprocess.run(
        [sys.executable, str(tmp_path / "parent.py")],
        capture_output=True,
        text=True,
        timeout=60,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert (done.returncode, done.stderr) == (0, "")
    total, error = done.stdout.splitlines()
    assert int(total) == 20 * slowly(encoded.train.images, range(40)).sum() and "RUNTIME.WORKERS" in error


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def prepared(encoded, folder: Path, *overrides: object) -> build.Training:
    cfg = small("fixmatch_seval", folder, *FEW, *overrides)
    torch.set_num_threads(1)
    return build.build(cfg, encoded, splits.split(encoded.train.labels, cfg), {}, CPU)


def test_a_run_on_an_encoded_set_is_the_same_with_any_workers_and_after_a_resume(encoded, tmp_path, monkeypatch):
    def history(workers: int, stop=train.never) -> list[dict]:
        (folder := tmp_path / str(workers)).mkdir(exist_ok=True)
        training = prepared(encoded, tmp_path, "RUNTIME.WORKERS", workers)
        lines = train.train(training, folder, {"configuration": "", "data": ""}, stop=stop)
        return [{key: value for key, value in line.items() if key != "seconds"} for line in lines]

    expected, real = history(0), train.update
    assert [line["step"] for line in expected] == [3, 6, 9, 12] and expected[-1]["quality"]
    polls = iter(range(13))
    with pytest.raises(train.Interrupted):
        history(2, lambda: next(polls) == 5)

    def interrupted(training, step):
        if step == 8:
            raise KeyboardInterrupt
        return real(training, step)

    monkeypatch.setattr(train, "update", interrupted)
    with pytest.raises(KeyboardInterrupt):
        history(2)
    monkeypatch.undo()
    assert history(2) == expected


def test_predictions_equal_those_from_memory(encoded, tmp_path):
    training = prepared(encoded, tmp_path, "RUNTIME.WORKERS", 0)
    images = training.data["test"].images
    memory = torch.from_numpy(slowly(images.source, images.index))[..., 2:-2, 2:-2]
    logits = [evaluate.predict(training.net, i, training.mean, training.std, 16)["linear"] for i in (images, memory)]
    assert logits[0].shape == (40, 10) and torch.equal(*logits)


def test_images_in_memory_are_evaluated_at_the_resolution_and_augmented_at_their_own(tiny, tmp_path):
    cfg = small("fixmatch", tmp_path, "DATASET.RESOLUTION", 8, "DATASET.CROP", 14)
    training = build.build(cfg, tiny, splits.split(tiny.train.labels, cfg), {}, CPU)
    chosen = np.concatenate([np.flatnonzero(tiny.test.labels == c)[:10] for c in range(10)])
    stored = torch.from_numpy(tiny.test.images[chosen])
    assert torch.equal(training.data["test"].images, augment.resize(stored[..., 1:-1, 1:-1], 8))
    assert {images.images.shape[2:] for images in training.data.values()} == {(8, 8)}
    state = training.loader.state_dict()["views"]["unlabeled views"]
    batch, generator = next(training.loader), torch.Generator()
    generator.set_state(state)
    stored = training.loader.feeds["unlabeled"].images[batch.index]
    for name, view in zip(training.loader.views, batch.views, strict=True):
        pixels = augment.VIEWS[name](stored, generator, cfg.DATASET.PADDING, cfg.DATASET.CUTOUT, 14)
        expected = augment.resize(pixels, 8)
        assert torch.equal(view, augment.normalize(expected, training.mean, training.std))


@pytest.mark.parametrize("kind", ["in memory", "encoded"])
def test_a_crop_larger_than_the_images_is_refused(kind, tiny, encoded, tmp_path):
    image_set, side = (tiny, 16) if kind == "in memory" else (encoded, SIDE)
    cfg = small("fixmatch", tmp_path, *FEW, "DATASET.CROP", SIDE + 1)
    with pytest.raises(ConfigError, match=f"DATASET.CROP is {SIDE + 1}, but the images have {side} pixels"):
        build.build(cfg, image_set, splits.split(image_set.train.labels, cfg), {}, CPU)
