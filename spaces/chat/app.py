"""Chat with a policy that was aligned with rewards for its turns, and see what each turn is worth.

    python spaces/chat/app.py

The models are named by environment variables, and come with the package where those are not set:

GELI_MODEL         the aligned policy, or an adapter (PEFT) to the base policy
GELI_BASE_POLICY    the policy before alignment; "" if there is none
GELI_REWARD         the reward model
GELI_COLLECT        folder for the rated sessions of those who agree (default: runs/collected)
GELI_COLLECT_REPO   a private dataset on the Hub that they are uploaded to; without it they stay in the folder
"""

from __future__ import annotations

import io
import os
import random
import sys
import time
from dataclasses import replace
from pathlib import Path

# Before all others, as it says itself.
from geli_hf.demo.serving import SAVE_JS, for_browser, friendly, launch_options, on_gpu, serve

# isort: split
import gradio as gr
from transformers.utils import logging

import geli_hf
from geli_hf.affect import face_classifier, face_detector
from geli_hf.data.rows import to_json_line
from geli_hf.demo import page
from geli_hf.demo.camera import FaceReader, Watch, picture_of
from geli_hf.demo.collection import Collection
from geli_hf.demo.conversation import (
    ALIGNED,
    BASE,
    Conversation,
    Reply,
    conversation_of,
    restored,
    session_row,
    snapshot,
)
from geli_hf.demo.limits import Limits, Visit
from geli_hf.demo.look import plain
from geli_hf.demo.policies import ModelError, Models, load_models
from geli_hf.metrics.plots import plot_session
from geli_hf.sessions import SessionError

logger = logging.get_logger("geli_hf.demo")

MODES = {
    "Aligned": (ALIGNED,),
    "Base": (BASE,),
    "Side by side": (ALIGNED, BASE),
    "Blind A/B": (ALIGNED, BASE),
}
BLIND = "Blind A/B"
STATE_SECONDS = 3 * 3600

# Edits happen where the text stands; everything else is told to the server, which trusts none of it.
THREAD_JS = """
const tell = (act, index, text) => trigger('act', {act, index, text: text || ''});
element.addEventListener('click', (event) => {
  const button = event.target.closest('[data-act]');
  if (!button) return;
  const index = Number(button.dataset.index);
  if (button.dataset.act !== 'edit') { tell(button.dataset.act, index); return; }
  const text = element.querySelector(`[data-text="${index}"]`);
  const field = document.createElement('textarea');
  field.className = 'g-edit'; field.value = text.textContent; field.rows = 3; field.maxLength = 1000;
  field.setAttribute('aria-label', 'Edit message ' + (index + 1));
  const buttons = document.createElement('div'); buttons.className = 'g-foot';
  const back = () => { field.remove(); buttons.remove(); text.hidden = false; button.focus(); };
  const save = () => { if (field.value.trim()) tell('edit', index, field.value); };
  for (const [label, action] of [['Save and rescore', save], ['Cancel', back]]) {
    const other = document.createElement('button');
    other.type = 'button'; other.className = 'g-act' + (action === save ? ' g-main' : ''); other.textContent = label;
    other.addEventListener('click', (inner) => { inner.stopPropagation(); action(); });
    buttons.append(other);
  }
  field.addEventListener('keydown', (key) => {
    if (key.key === 'Escape') back();
    if (key.key === 'Enter' && !key.shiftKey) { key.preventDefault(); save(); }
  });
  text.hidden = true; text.after(field, buttons); field.focus();
});
const down = () => { const box = element.querySelector('.g-thread'); if (box) box.scrollTop = box.scrollHeight; };
watch('value', down); down();
"""
# The file is read in the browser and never lies on the server.
LOAD_HTML = """<label class="g-file"><span>Load a conversation (JSONL, up to 500 kB)</span>
<input type="file" accept=".jsonl,.json" aria-label="Load a conversation"></label>"""
LOAD_JS = """
element.addEventListener('change', async (event) => {
  const file = event.target.files && event.target.files[0];
  if (!file) return;
  const text = file.size > 500000 ? '' : await file.text();
  event.target.value = '';
  trigger('opened', {text, bytes: file.size});
});
"""
KEEP_JS = "(kept) => { kept ? sessionStorage.setItem('geli-chat', kept) : sessionStorage.removeItem('geli-chat'); }"
KEPT_JS = "(kept, ...rest) => [sessionStorage.getItem('geli-chat') || '', ...rest]"


def build_demo(
    models: Models, collection: Collection, faces: FaceReader | None = None, limits: Limits | None = None
) -> gr.Blocks:
    """The page.

    Args:
        models: policies and reward model.
        collection: where rated sessions of those who agree are written.
        faces: what reads faces; None: the page has no camera.
        limits: what one visitor may ask of it.
    """
    limits = limits or Limits()
    modes = [mode for mode, sources in MODES.items() if set(sources) <= set(models.policies)]
    reads_system = models.policies[ALIGNED].reads_system

    @on_gpu
    def stream(source: str, messages: list[dict], options: dict):
        yield from models.policies[source].stream(messages, **options)

    score = on_gpu(models.score)
    nothing = (gr.skip(),) * 4  # of what `view` gives; the last that a handler yields is what stays on the page

    def view(conversation: Conversation, watch: Watch):
        """What every handler gives in the end: the state, and the conversation, chart and rating on the page."""
        smiles = watch.feedback(conversation).get("affect_mean")
        chart = page.chart(conversation, smiles)
        return conversation, page.thread(conversation, models), chart, page.rating(conversation, models)

    def scored(conversation: Conversation) -> Conversation:
        return conversation.scored(score, models.rating)

    def while_latest(replying):
        """What it shows, until the conversation goes on with something else: then nobody waits for the reply."""

        def shown(conversation, visit, *rest):
            number = visit.begin()
            for each in replying(conversation, visit, *rest):
                if visit.latest != number:
                    yield nothing
                    return
                yield each

        return shown

    def stream_all(visit: Visit, sources: tuple[str, ...], messages: list[dict], options: dict):
        """The replies of all sources as far as they are, each time one of them has grown."""
        streams = {source: stream(source, messages, options) for source in sources}
        texts = dict.fromkeys(sources, "")
        while streams and not visit.stopped:
            for source in list(streams):
                text = next(streams[source], None)
                if text is None:
                    del streams[source]
                else:
                    texts[source] = text
            yield [Reply(source, text) for source, text in texts.items()]
        for left in streams.values():
            left.close()

    @while_latest
    def answer(conversation, visit, watch, mode, options):
        """The replies to the conversation's last message, as they come."""
        sources, blind = MODES[mode], mode == BLIND
        if blind:
            sources = tuple(random.sample(sources, len(sources)))
        replies = [Reply(source, "") for source in sources]
        yield conversation, page.thread(conversation, models, replies, blind=blind), gr.skip(), gr.skip()
        for replies in stream_all(visit, sources, conversation.messages, options):
            yield conversation, page.thread(conversation, models, replies, blind=blind), gr.skip(), gr.skip()
        said = [reply for reply in replies if reply.text]
        if not said:
            gr.Info("Stopped before a word was said." if visit.stopped else "There was no answer. Try again.")
        elif len(sources) > 1 and len(said) > 1:
            conversation = conversation.asked(said, blind)
        else:
            conversation = conversation.replied(said[0], time.time())
        yield view(scored(conversation), watch)

    @while_latest
    def again(conversation, visit, watch, index, options):
        """The reply at `index` written anew by the policy that wrote it, with all that follows it left as it is."""
        turn = conversation.turns[index]
        source = turn.source if turn.source in models.policies else ALIGNED
        text = ""
        before = conversation.messages[:index]
        for [reply] in stream_all(visit, (source,), before, options):
            text = reply.text
            yield conversation, page.thread(conversation, models, [reply], place=index), gr.skip(), gr.skip()
        if text:
            conversation = scored(conversation.edited(index, text, source))
        yield view(conversation, watch)

    def options_of(system: str, temperature: float, length: float) -> dict:
        return {"system": system if reads_system else "", "temperature": temperature, "max_new_tokens": int(length)}

    def wait(visit: Visit) -> bool:
        if visit.too_often(limits, time.time()):
            gr.Warning(f"That is more than {limits.per_minute} replies a minute. Please wait a moment.")
            return True
        return False

    @friendly
    def send(text, conversation, visit, watch, mode, system, temperature, length):
        minutes = (time.time() - conversation.started) / 60
        problem = limits.problem(text, len(conversation.turns), minutes)
        if conversation.closed:
            problem = "This conversation is closed. Start a new one."
        elif conversation.choice is not None and conversation.choice.blind:
            problem = "Vote first: the conversation goes on with the reply that you prefer."
        if problem:
            gr.Warning(problem)
        if problem or wait(visit):
            yield gr.skip(), *view(conversation, watch)
            return
        conversation = conversation.said(text.strip(), time.time())
        typed = ""  # and afterwards what is typed while the reply is written
        for shown in answer(conversation, visit, watch, mode, options_of(system, temperature, length)):
            yield typed, *shown
            typed = gr.skip()

    @friendly
    def act(conversation, visit, watch, mode, system, temperature, length, event: gr.EventData):
        """What was clicked in the conversation. It may be anything, since a browser sends it."""
        told = event._data if isinstance(event._data, dict) else {}
        name, index, text = told.get("act"), told.get("index"), told.get("text")
        index = index if isinstance(index, int) else -2
        turns = range(len(conversation.turns))
        options = options_of(system, temperature, length)
        visit.begin()
        if name == "start" and index in range(len(page.STARTERS)) and not conversation.turns:
            for shown in send(page.STARTERS[index], conversation, visit, watch, mode, system, temperature, length):
                yield shown[1:]
            return
        if conversation.closed:
            gr.Warning("This conversation is closed. Start a new one.")
        elif name == "edit" and index in turns and isinstance(text, str):
            problem = limits.problem(text, 0, 0)
            if problem:
                gr.Warning(problem)
            elif text.strip() != conversation.turns[index].text:
                conversation = scored(conversation.edited(index, text.strip()))
        elif name == "again" and index in turns and conversation.turns[index].role == "assistant":
            if index and not wait(visit):
                yield from again(conversation, visit, watch, index, options)
                return
        elif name in ("choose", "vote") and conversation.choice is not None:
            conversation = scored(conversation.decided(index, time.time()))
        yield view(conversation, watch)

    @friendly
    def retry(conversation, visit, watch, mode, system, temperature, length):
        """Another reply to the last message."""
        options = options_of(system, temperature, length)
        visit.begin()
        last = len(conversation.turns) - 1
        if last < 0 or conversation.closed:
            gr.Info("There is no reply to try again.")
        elif conversation.choice is None and conversation.turns[last].role == "assistant":
            if last and not wait(visit):
                yield from again(conversation, visit, watch, last, options)
                return
        elif not wait(visit):
            yield from answer(conversation.changed(choice=None), visit, watch, mode, options)
            return
        yield view(conversation, watch)

    @friendly
    def undo(conversation, visit, watch):
        visit.begin()
        yield view(conversation if conversation.closed else conversation.undone(), watch)

    @friendly
    def clear(conversation, visit):
        visit.begin()
        past = () if conversation.closed else (replace(conversation, past=()),)
        watch = Watch()
        yield watch, "", *view(replace(Conversation(), past=past), watch)

    def stop(visit):
        visit.stopped = True

    @friendly
    def rate(conversation, visit, watch, rating, consent):
        """Close the session; with consent, and only then, it is written."""
        problem = ""
        if conversation.closed:
            problem = "This conversation is closed already."
        elif not conversation.replies:
            problem = "Talk a little first: there is nothing to rate yet."
        elif conversation.choice is not None:
            problem = "Choose a reply first."
        elif rating is None or int(rating) not in range(1, 10):
            problem = "Choose a number from 1 to 9."
        if problem:
            gr.Warning(problem)
            yield gr.skip(), gr.skip(), *view(conversation, watch)
            return
        visit.begin()
        if consent:
            collection.add(session_row(conversation, int(rating), watch.feedback(conversation)))
        conversation = replace(conversation, closed=True, collected=bool(consent), past=())
        note = page.thanks(conversation, collection.repo, collection.minutes)
        yield note, conversation.key if consent else gr.skip(), *view(conversation, watch)

    @friendly
    def delete(key):
        found = collection.delete(key.strip()) if key.strip() else "unknown"
        yield page.deleted(found)

    @friendly
    def export(conversation, watch):
        if not conversation.replies:
            gr.Info("There is nothing to export yet.")
            yield ""
            return
        row = session_row(conversation, feedback=watch.feedback(conversation))
        line = to_json_line(row) + "\n"
        yield for_browser(f"conversation-{conversation.session_id}.jsonl", "application/jsonl", line.encode())

    @friendly
    def picture(conversation):
        if not conversation.replies:
            gr.Info("There is nothing to draw yet.")
            yield ""
            return
        picture = io.BytesIO()
        quantiles = models.reward.config.reward_quantiles
        plot_session(session_row(conversation), conversation.rewards, picture, quantiles, max_messages=limits.messages)
        yield for_browser(f"conversation-{conversation.session_id}.png", "image/png", picture.getvalue())

    @friendly
    def load(conversation, visit, event: gr.EventData):
        told = event._data if isinstance(event._data, dict) else {}
        text, watch = told.get("text"), Watch()
        if not isinstance(text, str) or not text or len(text.encode()) > limits.file_bytes:
            gr.Warning(f"Expected a conversation of up to {limits.file_bytes // 1000} kB, as Export writes it.")
            yield gr.skip(), *nothing
            return
        try:
            found = conversation_of(text, most_messages=limits.messages, most_characters=limits.characters)
        except SessionError as error:
            gr.Warning(plain(str(error)[:200]))
            yield gr.skip(), *nothing
            return
        visit.begin()
        past = () if conversation.closed else (replace(conversation, past=()),)
        yield watch, *view(replace(scored(found), past=past), watch)

    @friendly
    def restore(kept, visit, watch):
        """The conversation that this tab had before it was loaded anew, unless another one has begun meanwhile."""
        too_long = not isinstance(kept, str) or len(kept) > limits.file_bytes
        found = None if too_long else restored(kept, most_messages=limits.messages, most_characters=limits.characters)
        shown = view(scored(found), watch) if found else nothing
        yield nothing if visit.latest else shown

    @friendly
    def see(frame, watch):
        picture = picture_of(frame)
        if faces is None or picture is None:
            yield gr.skip()
            return
        yield page.meter(watch.see(faces, picture, time.time()).smile)

    with gr.Blocks(title="Chat with a reward for every turn", analytics_enabled=False) as demo:
        # Called once for each tab.
        conversation = gr.State(lambda: Conversation(), time_to_live=STATE_SECONDS)
        visit = gr.State(lambda: Visit(), time_to_live=STATE_SECONDS)
        watch = gr.State(lambda: Watch(), time_to_live=STATE_SECONDS)
        kept, file = gr.Textbox(visible="hidden"), gr.Textbox(visible="hidden")
        gr.HTML(page.HEAD, apply_default_css=False)
        with gr.Row():
            with gr.Column(scale=3, min_width=320):
                mode = gr.Radio(modes, value="Aligned", label="Who answers")
                thread = gr.HTML(
                    page.thread(Conversation(), models),
                    js_on_load=THREAD_JS,
                    elem_id="thread",
                    apply_default_css=False,
                )
                message = gr.Textbox(
                    label="Your message",
                    placeholder="Say something",
                    max_lines=6,
                    max_length=limits.characters,
                    submit_btn="Send",
                    autofocus=True,
                    elem_id="message",
                )
                with gr.Row(elem_classes="g-tools"):
                    stop_button = gr.Button("Stop", size="sm", min_width=60)
                    retry_button = gr.Button("Retry", size="sm", min_width=60)
                    undo_button = gr.Button("Undo", size="sm", min_width=60)
                    clear_button = gr.Button("Clear", size="sm", min_width=60)
                chart = gr.HTML(page.chart(Conversation()), elem_id="chart", apply_default_css=False)
            with gr.Column(scale=2, min_width=320):
                rated = gr.HTML(page.rating(Conversation(), models), elem_id="rated", apply_default_css=False)
                with gr.Group():
                    rating = gr.Radio(
                        [(str(number), number) for number in range(1, 10)],
                        label="How did you feel during this conversation, all in all?",
                        info="1 very bad, 5 neither, 9 very good",
                        elem_id="rating",
                    )
                    consent = gr.Checkbox(False, label=page.CONSENT, elem_id="consent")
                    rate_button = gr.Button("Rate and close the session", variant="primary")
                note = gr.HTML("", elem_id="note", apply_default_css=False)
                if faces is not None:
                    with gr.Accordion("Camera: let your face give feedback", open=False):
                        gr.HTML(page.ABOUT_CAMERA, apply_default_css=False)
                        camera_on = gr.Checkbox(False, label="Use my camera")
                        camera = gr.Image(
                            sources=["webcam"], streaming=True, visible=False, label="Camera", height=220, buttons=[]
                        )
                        meter = gr.HTML(
                            page.meter(float("nan")), visible=False, elem_id="meter", apply_default_css=False
                        )
                with gr.Accordion("Settings", open=False):
                    temperature = gr.Slider(
                        0, 1.5, 0.8, step=0.1, label="Temperature", info="0: always the likeliest word"
                    )
                    length = gr.Slider(8, 120, 40, step=4, label="Longest reply, in tokens")
                    system = gr.Textbox(
                        label="System prompt",
                        info="" if reads_system else "This policy's chat template has no place for one.",
                        interactive=reads_system,
                        max_length=limits.characters,
                    )
                with gr.Accordion("Export and load", open=False):
                    with gr.Row():
                        export_button = gr.Button("Export JSONL", size="sm", min_width=100)
                        picture_button = gr.Button("Export picture", size="sm", min_width=100)
                    loader = gr.HTML(LOAD_HTML, js_on_load=LOAD_JS, apply_default_css=False)
                with gr.Accordion("Your data", open=False):
                    gr.HTML(page.ABOUT_DATA, apply_default_css=False)
                    key = gr.Textbox(label="Key of a session", max_length=64, max_lines=1, elem_id="key")
                    delete_button = gr.Button("Delete my session", size="sm", variant="stop")
                    deleted = gr.HTML("", elem_id="deleted", apply_default_css=False)
        gr.HTML(page.ABOUT, apply_default_css=False)

        shown = [conversation, thread, chart, rated]
        options = [conversation, visit, watch, mode, system, temperature, length]
        quiet = {"show_progress": "hidden", "api_visibility": "private"}
        # Who has to wait for others sees for how many.
        waits = quiet | {"show_progress": "minimal", "show_progress_on": message}
        # What is sent while a reply is written waits for its end.
        message.submit(send, [message, *options], [message, *shown], trigger_mode="always_last", **waits)
        thread.act(act, options, shown, **waits)
        retry_button.click(retry, options, shown, **waits)
        stop_button.click(stop, visit, queue=False, **quiet)
        undo_button.click(undo, [conversation, visit, watch], shown, trigger_mode="multiple", **quiet)
        clear_button.click(clear, [conversation, visit], [watch, note, *shown], **quiet)
        rate_button.click(rate, [conversation, visit, watch, rating, consent], [note, key, *shown], **quiet)
        delete_button.click(delete, key, deleted, **quiet)
        save = {"inputs": file, "js": SAVE_JS, **quiet}
        export_button.click(export, [conversation, watch], file, **quiet).then(None, **save)
        picture_button.click(picture, conversation, file, **quiet).then(None, **save)
        # Gradio drops what is asked for again before the end of the event, which comes after what it shows.
        loader.opened(load, [conversation, visit], [watch, *shown], trigger_mode="multiple", **quiet)
        conversation.change(snapshot, conversation, kept, **quiet).then(None, kept, js=KEEP_JS, **quiet)
        demo.load(restore, [kept, visit, watch], shown, js=KEPT_JS, **quiet)
        if faces is not None:
            camera_on.change(
                lambda on: (gr.update(visible=on), gr.update(visible=on)), camera_on, [camera, meter], **quiet
            )
            camera.stream(
                see,
                [camera, watch],
                meter,
                stream_every=0.5,
                time_limit=3600,
                concurrency_limit=4,
                preprocess=False,
                **quiet,
            )
    return demo


# By the argument of `load_models`.
VARIABLES = {"policy": "GELI_MODEL", "base": "GELI_BASE_POLICY", "reward": "GELI_REWARD"}


def main() -> None:
    weights = Path(geli_hf.__file__).parent / "weights"
    try:
        models = load_models(
            os.environ.get("GELI_MODEL") or weights / "policy_adapter",
            os.environ.get("GELI_BASE_POLICY", weights / "policy") or None,
            os.environ.get("GELI_REWARD") or weights / "policy_reward",
        )
    except ModelError as error:
        sys.exit(f"{VARIABLES[error.argument]}: {error.told}")
    folder, repo = os.environ.get("GELI_COLLECT", "runs/collected"), os.environ.get("GELI_COLLECT_REPO") or None
    try:
        collection = Collection(folder, repo)
    except (OSError, ValueError) as error:
        wanted = f"GELI_COLLECT: expected a folder to write to, found {folder!r}"
        if Path(folder).is_dir():
            wanted = f"GELI_COLLECT_REPO: expected a dataset that HF_TOKEN may write to, found {repo!r}"
        sys.exit(f"{wanted}: {str(error).partition(chr(10))[0]}")
    serve(build_demo(models, collection, faces=camera_faces()), LAUNCH)


def camera_faces() -> FaceReader | None:
    """What reads faces, if the packages for that are there."""
    try:
        return FaceReader(face_detector(), face_classifier())
    except ImportError as error:
        logger.warning(f"The page has no camera: {error}")
        return None


LAUNCH = launch_options("1mb")

if __name__ == "__main__":
    main()
