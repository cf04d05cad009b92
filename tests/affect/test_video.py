"""Videos to tables of emotions, and camera frames to probabilities."""

import io
import weakref

import numpy as np
import pandas as pd
import pytest
from clips import scene, walk, write

from geli_hf.affect import CascadeDetector, VideoAffect
from geli_hf.affect.emotions import EMOTIONS, FACE_COLUMNS, HAPPINESS
from geli_hf.affect.faces import square_crop
from geli_hf.affect.video import BOX_COLUMNS, COLUMNS


class Brightness:
    """A classifier that calls bright faces happy, and knows no other emotion but neutral."""

    fingerprint = "brightness"

    def __init__(self):
        self.batches = []

    def crop(self, image, box):
        return square_crop(image, box, side=8)

    def classify(self, crops):
        self.batches.append(len(crops))
        result = np.full((len(crops), len(EMOTIONS)), np.nan, np.float32)
        result[:, HAPPINESS] = crops.mean((1, 2)) / 255
        result[:, EMOTIONS.index("neutral")] = 1 - result[:, HAPPINESS]
        return result


def watch(**options) -> VideoAffect:
    return VideoAffect(options.pop("classifier", None) or Brightness(), CascadeDetector(), **options)


PLACES = [*walk(30)[:12], None, None, None, *walk(30)[15:]]  # she is away for three frames


@pytest.fixture(scope="module")
def pictures() -> list[np.ndarray]:
    return [scene(*([] if place is None else [place])) for place in PLACES]


@pytest.fixture(scope="module")
def clip(pictures, tmp_path_factory):
    """Five frames a second."""
    return write(tmp_path_factory.mktemp("clip") / "clip.mp4", pictures, rate=5)


@pytest.fixture(scope="module")
def table(clip) -> pd.DataFrame:
    return watch()(clip)


def test_the_table(table):
    assert list(table) == COLUMNS == ["time", "x", "y", "width", "height", *FACE_COLUMNS]
    assert all(kind.kind == "f" for kind in table.dtypes)
    assert table["time"].tolist() == pytest.approx([number / 5 for number in range(30)])
    assert "incomplete" not in table.attrs
    for place, (_, row) in zip(PLACES, table.iterrows()):
        if place is None:
            assert row.drop("time").isna().all()  # neither a zero nor a guess
            continue
        assert row["x"] + row["width"] / 2 == pytest.approx(place.x + place.width / 2, abs=15)
        assert row["y"] + row["height"] / 2 == pytest.approx(place.y + place.height / 2, abs=15)
        assert row["width"] == row["height"] == pytest.approx(place.width, rel=0.3)
        assert row["prob_face_happiness"] + row["prob_face_neutral"] == pytest.approx(1)
        assert row[["prob_face_anger", "prob_face_contempt"]].isna().all()  # unknown to the classifier


@pytest.mark.parametrize("size", [1, 2, 7, 27, 1000])
def test_batches_do_not_matter(clip, table, size):
    classifier = Brightness()
    pd.testing.assert_frame_equal(watch(classifier=classifier, batch_size=size)(clip), table)
    assert sum(classifier.batches) == 27
    assert max(classifier.batches) == min(size, 27)


def test_the_source_does_not_matter(clip, table):
    pd.testing.assert_frame_equal(watch()(str(clip)), table)
    pd.testing.assert_frame_equal(watch()(io.BytesIO(clip.read_bytes())), table)


def test_live_is_the_same(pictures):
    affect = watch()
    table = affect((number / 5, picture) for number, picture in enumerate(pictures))
    live = affect.live()
    for picture, (_, row) in zip(pictures, table.iterrows()):
        found = live(picture)
        if found is None:
            assert np.isnan(row["x"])
        else:
            assert found[0] == tuple(row[BOX_COLUMNS])
            np.testing.assert_array_equal(found[1], row[FACE_COLUMNS].to_numpy(np.float32))


def test_viewers_do_not_share_a_face():
    affect, left, right = watch(), (60, 150, 90, 90), (430, 150, 90, 90)
    one, other = affect.live(), affect.live()
    for _ in range(2):
        assert one(scene(left))[0].x == pytest.approx(60, abs=15)
        assert other(scene(right))[0].x == pytest.approx(430, abs=15)


@pytest.mark.parametrize("frames", [0, 4])
def test_a_video_without_a_face(frames):
    classifier = Brightness()
    table = watch(classifier=classifier)((float(number), scene()) for number in range(frames))
    assert list(table) == COLUMNS
    assert table["time"].tolist() == list(range(frames))
    assert table.drop(columns="time").isna().all(axis=None)
    assert not classifier.batches
    assert watch().live()(scene()) is None


def test_frames_are_freed():
    """At most one of the earlier frames stays in memory."""
    alive, most = [], 0

    def camera():
        nonlocal most
        for number, place in enumerate(walk(30)):
            picture = scene(place)
            alive.append(weakref.ref(picture))
            yield number / 5, picture
            del picture
            most = max(most, sum(one() is not None for one in alive))

    assert len(watch(batch_size=64)(camera())) == 30
    assert most <= 2


def test_boxes_are_those_of_the_video(pictures):
    """Though a large frame is made smaller before anybody looks at it."""
    [row] = watch()([(0.0, pictures[0].repeat(4, 0).repeat(4, 1))]).to_dict("records")
    assert row["x"] == pytest.approx(4 * PLACES[0].x, abs=60)
    assert row["width"] == pytest.approx(4 * PLACES[0].width, rel=0.3)


def test_a_video_that_breaks_off_is_marked(tmp_path, pictures):
    path = write(tmp_path / "clip.mp4", pictures, rate=5, container_options={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    table = watch()(path)
    assert table.attrs["incomplete"].startswith("breaks off at ")
    assert 5 < len(table) < 30


def test_fingerprints(clip):
    affect = watch()
    others = [watch(fps=4), watch(face="left"), VideoAffect()]
    assert affect.fingerprint == watch(batch_size=3).fingerprint
    assert len({affect.fingerprint, *(other.fingerprint for other in others)}) == 4


@pytest.mark.parametrize(("options", "message"), [({"fps": 0}, "fps: expected"), ({"face": "nose"}, "face: expected")])
def test_wrong_options_are_errors_at_once(options, message):
    with pytest.raises(ValueError, match=message):
        watch(**options)


def test_the_bar_ends_where_the_video_does_and_needs_no_length(clip, capfd):
    affect = watch()
    affect(clip)
    assert capfd.readouterr().err == ""
    affect(clip, progress=True)
    last = capfd.readouterr().err.rpartition("\r")[2]
    assert "clip.mp4" in last
    assert "100%" in last
    affect([(second, scene()) for second in (0.0, 1.0)], progress=True)
    assert "1.0 s" in capfd.readouterr().err.rpartition("\r")[2]


# How colours are stored must not matter


@pytest.fixture(scope="module")
def happy() -> float:
    return _happiness([(0.0, scene((250, 150, 140, 140)))])


def _happiness(source) -> float:
    return VideoAffect()(source)["prob_face_happiness"].iloc[0]


def test_bgr_for_rgb(happy):
    assert happy > 0.8
    assert _happiness([(0.0, scene((250, 150, 140, 140))[..., ::-1])]) == pytest.approx(happy, abs=0.02)


@pytest.mark.parametrize("full", [False, True])
def test_limited_for_full_range(tmp_path, happy, full):
    """A file that says the other range than it has."""
    from av import VideoFrame

    frame = VideoFrame.from_ndarray(scene((250, 150, 140, 140)), format="rgb24")
    frame = frame.reformat(format="yuv420p", dst_color_range=1 if full else 2)
    path = write(tmp_path / "range.mkv", [frame], codec="ffv1", full=full)
    assert _happiness(path) == pytest.approx(happy, abs=0.02)


# Real recordings


@pytest.mark.parametrize("fps", [5, 25])
def test_a_real_clip_without_a_face(shared_data, fps):
    table = watch(fps=fps)(shared_data / "media" / "no_face.mp4")
    assert len(table) > 3.7 * min(fps, 24)
    assert table.drop(columns="time").isna().all(axis=None)


def test_a_real_clip_whose_face_goes(shared_data):
    table = watch(fps=25)(shared_data / "media" / "face_noface.mov")
    seen = table["x"].notna()
    assert seen[table["time"] < 2.2].mean() > 0.95
    assert not seen[table["time"] > 2.5].any()


def test_a_real_clip_of_a_smile(shared_data):
    """A man looks plainly at us for half a second, smiles, and stops in the last frame."""
    table = VideoAffect(fps=25)(shared_data / "media" / "single_face.mp4")
    assert table["x"].notna().all()
    happy = table.set_index("time")["prob_face_happiness"]
    assert happy[:0.5].max() < 0.2
    assert happy[0.65:2.25].min() > 0.8
    assert happy.iloc[-1] < 0.5
