"""The apps on a GPU that is lent to them."""

import json

import pytest
from browsing import ROOT, load_app, tiny_models
from fresh import in_fresh_process

from geli_hf.demo.collection import Collection

pytest.importorskip("gradio", reason="needs gradio, of the demo extra")

# The package of a Space with ZeroGPU. Arguments and results are pickled, since the GPU is another process's.
ZERO_GPU = """
import functools, inspect, pickle, sys

torch_was_there = "torch" in sys.modules
lent = False

def sent(value):
    return pickle.loads(pickle.dumps(value))

def GPU(function):
    def on_it(call, *arguments, **named):
        global lent
        lent = True
        try:
            return sent(call(*sent(arguments), **sent(named)))
        finally:
            lent = False

    if not inspect.isgeneratorfunction(function):
        return functools.partial(on_it, function)

    @functools.wraps(function)
    def generate(*arguments, **named):
        each, end = function(*sent(arguments), **sent(named)), object()
        while (value := on_it(lambda: next(each, None))) is not None:
            yield value

    return generate
"""


def of_the_chat(root: str, stand_in: str | None) -> dict:
    """Compute a reply and its reward, and note for each computation if the GPU was lent."""
    import runpy
    import sys
    from types import SimpleNamespace

    sys.path[:0] = [stand_in] * bool(stand_in) + [f"{root}/tests/spaces"]
    app = runpy.run_path(f"{root}/spaces/chat/app.py")
    from browsing import Scripted, tiny_models

    from geli_hf.demo.chat_events import AFTER, Visit
    from geli_hf.demo.collection import Collection
    from geli_hf.demo.conversation import Conversation

    zero = sys.modules.get("spaces")
    lent, models = [], tiny_models()

    class Watched(Scripted):
        def stream(self, *arguments, **named):
            for text in super().stream(*arguments, **named):
                lent.append(getattr(zero, "lent", None))
                yield text

    models.policies["aligned"] = Watched("I am so happy for you")
    models.reward.register_forward_pre_hook(lambda *_: lent.append(getattr(zero, "lent", None)))
    demo = app["build_demo"](models, Collection("collected"))
    [send] = [function.fn for function in demo.fns.values() if function.name == "send"]
    *_, shown = send("hello", Conversation(), Visit(), AFTER, SimpleNamespace(client=None))
    said = [turn.text for turn in shown[1].turns]
    late = getattr(zero, "torch_was_there", None)
    return {"shown": [said, shown[1].rewards], "lent": [len(lent), *set(lent)], "torch": late}


def of_the_face(root: str, stand_in: str | None) -> dict:
    import runpy
    import sys

    sys.path[:0] = [stand_in] * bool(stand_in) + [f"{root}/tests/spaces"]
    app = runpy.run_path(f"{root}/spaces/facial_signal/app.py")
    from browsing import tiny_models

    from geli_hf.demo.camera import FaceReader
    from geli_hf.demo.facial import LiveSession

    zero = sys.modules.get("spaces")
    lent, model = [], tiny_models().reward
    model.register_forward_pre_hook(lambda *_: lent.append(getattr(zero, "lent", None)))
    demo = app["build_demo"](model, FaceReader())
    [speak] = [function.fn for function in demo.fns.values() if function.name == "speak"]
    session = LiveSession()
    list(speak(session))
    late = getattr(zero, "torch_was_there", None)
    return {"shown": session.scored[1].words, "lent": [len(lent), *set(lent)], "torch": late}


@pytest.mark.parametrize("compute", [of_the_chat, of_the_face])
def test_a_lent_gpu_computes_and_the_package_is_optional(compute, tmp_path, monkeypatch):
    """Replies and rewards are computed while the GPU is lent, and equal those without that package."""
    (tmp_path / "stand_in").mkdir()
    (tmp_path / "stand_in" / "spaces.py").write_text(ZERO_GPU)
    place, path = str(tmp_path / "stand_in"), {"PYTHONPATH": f"{ROOT}/tests:{ROOT}"}
    there = in_fresh_process(compute, tmp_path, path, root=str(ROOT), stand_in=place)
    monkeypatch.chdir(tmp_path)
    without = json.loads(json.dumps(compute(str(ROOT), None)))
    assert there["shown"] == without["shown"]
    count, *lent = there["lent"]
    assert count
    assert lent == [True]
    assert there["torch"] is False  # the package was imported before it
    assert without["lent"][1:] == [None]


def test_a_policy_that_is_nowhere_ends_the_chat_in_one_line(monkeypatch):
    app = load_app("chat")
    monkeypatch.setenv("GELI_MODEL", "./no_such_policy")
    monkeypatch.setenv("GELI_BASE_POLICY", "")
    with pytest.raises(SystemExit, match="no_such_policy"):
        app.main()


@pytest.mark.parametrize("name", ["chat", "facial_signal"])
def test_nothing_replaces_the_state_of_a_tab_that_is_in_use(name, tmp_path):
    """A function in place of an initial value is an event, which comes when a busy server gets to it."""
    app = load_app(name)
    arguments = {"chat": (tiny_models(), Collection(tmp_path)), "facial_signal": (tiny_models().reward, None)}[name]
    demo = app.build_demo(*arguments)
    events = [event for function in demo.fns.values() if function.fn for _, event in function.targets]
    assert len(events) > 5
    assert "load" not in events
