"""The llama runner on real model files: what it computes, what it refuses, what must not make it abort."""

from __future__ import annotations

import ctypes
from types import SimpleNamespace

import gguf
import numpy as np
import psutil
import pytest
from tiny_gguf import END, KV_ELEMENTS_PER_TOKEN, RECITED

from labsupport.engine import offline
from labsupport.engine.config import ConfigRefused, EngineConfig
from labsupport.engine.messages import SamplingParams
from labsupport.engine.offline import Completion, OfflineEngine
from labsupport.engine.plan import CellsExhausted, Draw, Free, Plan, Row, Share
from labsupport.engine.runners import llama, llama_loading
from labsupport.engine.runners.llama import LlamaRunner
from labsupport.engine.runners.threads import ThreadPolicy
from labsupport.engine.validation import RequestRefused
from labsupport.errors import LabsupportError

GREEDY = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True)
WATCHED = SamplingParams(max_tokens=40, temperature=0, ignore_eos=True, logprobs=2)
PROMPTS = [list(f"{'shared beginning ' * (index % 3)}prompt number {index}".encode()) for index in range(16)]


def plan(*rows: Row, operations: tuple = ()) -> Plan:
    return Plan(operations=operations, rows=rows, sequences=())


def row(slot: int, start: int, tokens: list[int], *, draws: bool = True) -> Row:
    return Row(slot, start, tokens, Draw(GREEDY, 0, 0) if draws else None)


@pytest.fixture
def runner(tiny_model):
    runner = LlamaRunner(
        EngineConfig(threads=1, model=str(tiny_model), kv_cells=512, slots=4, prefix_slots=2, step_tokens=128)
    )
    yield runner
    runner.close()


def gaps(completion: Completion) -> np.ndarray:
    """Per token, by how much the likeliest beat the second."""
    return np.array([each.top[0][2] - each.top[1][2] for each in completion.logprobs])


def agreed(first: Completion, second: Completion) -> int:
    """How many tokens two texts have in common from the start."""
    same = [a == b for a, b in zip(first.tokens, second.tokens, strict=True)]
    return same.index(False) if False in same else len(same)


def measured_margin(engine: OfflineEngine) -> float:
    """Twice the most that a gap moves with the company a sequence has, over positions of equal context."""
    prompts = [list(f"calibrate {index}".encode()) for index in range(16)]
    alone = [engine.generate([prompt], WATCHED)[0] for prompt in prompts]
    moves = [
        np.abs(gaps(one) - gaps(other))[: agreed(one, other)].max(initial=0)
        for one, other in zip(alone, engine.generate(prompts, WATCHED), strict=True)
    ]
    return 2 * max(moves)


def assert_same_where_clear(first: list[Completion], second: list[Completion], margin: float) -> None:
    """Two texts may only part where the two best logits were within the margin."""
    for one, other in zip(first, second, strict=True):
        place = agreed(one, other)
        assert place == len(one.tokens) or gaps(one)[place] <= margin, f"parted at {place}"


@pytest.mark.parametrize(("model", "clear_share"), [("tiny_model", 0.9), ("quantized_model", 0.4)])
def test_sixteen_at_once_say_what_each_says_alone_where_the_margin_is_clear(model, clear_share, request):
    with OfflineEngine(
        EngineConfig(threads=1, model=str(request.getfixturevalue(model)), prefix_slots=0)
    ) as engine:
        # Given how far the logits move with the company, measured on other prompts
        margin = measured_margin(engine)
        # When sixteen run one by one and at once
        alone = [engine.generate([prompt], WATCHED)[0] for prompt in PROMPTS]
        together = engine.generate(PROMPTS, WATCHED)
    # Then they say the same, and the margin is small enough for that to mean something
    assert_same_where_clear(alone, together, margin)
    assert np.concatenate([gaps(each) > margin for each in alone]).mean() > clear_share


def test_a_shared_prefix_changes_nothing_but_the_work(tiny_model):
    shared = [[*b"the very same beginning of a prompt, " * 8, index] for index in range(8)]
    texts = []
    for prefix_slots in (0, 8):
        config = EngineConfig(threads=1, model=str(tiny_model), prefix_slots=prefix_slots, step_tokens=74)
        with OfflineEngine(config) as engine:
            texts.append(engine.generate(shared, WATCHED))
            assert engine.scheduler.check_integrity() == []
            margin = measured_margin(engine)
    assert_same_where_clear(*texts, margin)
    assert [each.cached_tokens for each in texts[0]] == [0] * 8
    assert [each.cached_tokens for each in texts[1]] == [0, *[len(shared[0]) - 1] * 7]


def test_preempted_sequences_say_the_same(tiny_model):
    def run(**levers):
        config = EngineConfig(threads=1, model=str(tiny_model), context_tokens=128, prefix_slots=0, **levers)
        with OfflineEngine(config) as engine:
            texts = engine.generate(PROMPTS, WATCHED)
            return texts, engine.scheduler.counters.preemptions, measured_margin(engine)

    roomy, cramped = run(), run(kv_cells=256, admission="preempt")
    assert roomy[1] == 0 < cramped[1]
    assert_same_where_clear(roomy[0], cramped[0], roomy[2])


def test_text_is_whole_characters_and_stops_where_it_is_told(reciting_model):
    with OfflineEngine(EngineConfig(threads=1, model=str(reciting_model))) as engine:
        once = len(RECITED.encode())

        def say(max_tokens, *stop):
            params = SamplingParams(max_tokens=max_tokens, temperature=0, stop=stop)
            return engine.generate([RECITED.encode()], params)[0]

        assert (say(2 * once).text, say(2 * once).finish_reason) == (2 * RECITED, "length")
        assert (say(50, "🙂c").text, say(50, "🙂c").finish_reason) == ("ab ", "stop")
        assert say(once, "cd?").text == RECITED  # begins like a stop string and is none
        assert say(5).text == "ab \ufffd"  # cut inside the emoji by max_tokens
        assert say(50, "!\na").tokens[-1] == ord("a")


def test_an_end_token_ends_unless_it_is_ignored(tiny_model):
    # Given the seeds of a hot model that draws the end token soon
    with OfflineEngine(EngineConfig(threads=1, model=str(tiny_model))) as engine:
        hot = [SamplingParams(max_tokens=60, temperature=50, seed=seed) for seed in range(40)]
        ended = [each for each in engine.generate([[65]] * 40, hot) if each.finish_reason == "stop"]
        assert ended
        assert all(each.tokens.index(END) == len(each.tokens) - 1 for each in ended)
        ignoring = [
            SamplingParams(max_tokens=60, temperature=50, seed=seed, ignore_eos=True) for seed in range(40)
        ]
        assert {len(each.tokens) for each in engine.generate([[65]] * 40, ignoring)} == {60}


def test_a_seed_gives_the_same_text_alone_and_in_company_and_0_is_a_seed(reciting_model):
    # Given a model whose logits hang on the last token alone, so hot that it draws anything
    def params(seed):
        return SamplingParams(max_tokens=30, temperature=60, top_k=50, seed=seed, ignore_eos=True)

    with OfflineEngine(EngineConfig(threads=1, model=str(reciting_model))) as engine:
        alone = engine.generate([PROMPTS[0]], params(0))[0]
        company = engine.generate([PROMPTS[0], *PROMPTS], [params(0), *map(params, range(1, 17))])
        unseeded = engine.generate([PROMPTS[0]] * 2, params(None))
    assert company[0].tokens == alone.tokens
    assert len({each.tokens for each in (alone, company[1], *unseeded)}) == 4


@pytest.mark.parametrize(("kv_type", "bytes_per_element"), [("f16", 2), ("q8_0", 34 / 32), ("q4_0", 18 / 32)])
def test_the_cache_is_as_large_as_its_type_says_and_works(tiny_model, kv_type, bytes_per_element):
    with OfflineEngine(
        EngineConfig(threads=1, model=str(tiny_model), kv_type=kv_type, kv_cells=1024)
    ) as engine:
        expected = 1024 * KV_ELEMENTS_PER_TOKEN * bytes_per_element
        assert engine.runner.kv_bytes == pytest.approx(expected, rel=0.01)  # the log has two decimals of MiB
        assert {len(each.tokens) for each in engine.generate(PROMPTS, GREEDY)} == {40}


def test_on_the_cpu_the_file_does_not_stay_in_memory_beside_what_is_repacked_of_it(tiny_model):
    runner = LlamaRunner(EngineConfig(threads=1, model=str(tiny_model), kv_cells=512, n_gpu_layers=0))
    mapped = {each.path for each in psutil.Process().memory_maps()}
    assert any("libllama" in path for path in mapped)
    assert str(tiny_model.resolve()) not in mapped
    runner.close()


def test_what_the_cache_takes_is_known_however_much_llama_cpp_says_while_it_loads(tiny_model, monkeypatch):
    open_context = llama.open_context

    def open_with_much_talk(*asked, **named):
        context = open_context(*asked, **named)
        for number in range(1000):  # a line for each tensor, of a large model
            llama_loading._keep_log(llama_loading._DEBUG, b"tensor %d\n" % number, None)
        return context

    monkeypatch.setattr(llama, "open_context", open_with_much_talk)
    runner = LlamaRunner(EngineConfig(threads=1, model=str(tiny_model), kv_cells=1024))
    assert runner.kv_bytes == pytest.approx(1024 * KV_ELEMENTS_PER_TOKEN * 2, rel=0.01)
    assert runner.compute_bytes > 0
    runner.close()


def test_a_full_cache_is_an_exception_that_leaves_the_device_as_it_was(runner):
    # Given 500 of 512 cells in use
    for slot in range(4):
        runner.step(plan(row(slot, 0, [65] * 125)))
    (expected,) = runner.step(plan(row(0, 125, [66])))
    # When a step needs more than there is
    with pytest.raises(CellsExhausted):
        runner.step(plan(row(1, 125, [67] * 60)))
    # Then it can go on once room is made
    (again,) = runner.step(plan(row(1, 125, [66]), operations=(Free(2),)))
    assert again.token == expected.token
    assert len(runner.step(plan(row(1, 126, [67] * 60)))) == 1


@pytest.mark.parametrize(
    "bad",
    [
        plan(row(0, 0, [65] * 129)),
        plan(row(0, 5, [65])),
        plan(row(99, 0, [65])),
        plan(row(-1, 0, [65])),
        plan(row(0, 0, [])),
        plan(row(0, 0, [100_000])),
        plan(row(0, 0, [-1])),
        plan(row(0, 0, [65]), row(0, 0, [65])),
        plan(operations=(Share(0, 1, 5),)),
        plan(operations=(Share(0, 77, 1),)),
        plan(operations=(Free(77),)),
    ],
)
def test_an_impossible_plan_is_refused_and_harms_nothing(runner, bad):
    with pytest.raises((ValueError, RuntimeError)):
        runner.step(bad)
    assert len(runner.step(plan(row(0, 0, [65, 66])))) == 1


def test_a_model_that_cannot_be_loaded_gives_one_clear_error(tiny_model, tmp_path):
    whole = tiny_model.read_bytes()
    field = b"llama.attention.head_count\x04\x00\x00\x00"
    assert whole.count(field) == 1
    for name, content, complaint in (
        ("empty", b"", "too few"),
        ("text", b"a text file, not a model\n" * 10, "no GGUF"),
        ("cut in the header", whole[:2000], "truncated"),
        ("cut in the weights", whole[:-1], "truncated"),
        ("no heads", whole.replace(field + b"\x04", field + b"\x00"), r"llama\.cpp cannot load"),
        ("odd heads", whole.replace(field + b"\x04", field + b"\x03"), r"llama\.cpp cannot load"),
    ):
        path = tmp_path / f"{name}.gguf"
        path.write_bytes(content)
        with pytest.raises(LabsupportError, match=complaint):
            offline.generate(path, [[65]], GREEDY)
    with pytest.raises(LabsupportError, match="trained for"):
        offline.generate(tiny_model, [[65]], GREEDY, context_tokens=1024)
    with pytest.raises(ConfigRefused, match="no model file"):
        offline.generate(tmp_path / "missing.gguf", [[65]], GREEDY)


def test_a_model_that_lacks_a_tensor_gives_one_clear_error(tmp_path):
    path = tmp_path / "hollow.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tensor("token_embd.weight", np.zeros((8, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(LabsupportError, match=r"llama\.cpp cannot load"):
        offline.generate(path, [[65]], GREEDY)


@pytest.mark.parametrize(
    ("slots", "prefix_slots", "step_tokens"), [(1, 0, 1), (1, 255, 1), (200, 56, 200), (4, 0, 65536)]
)
def test_the_extremes_of_the_levers_run(tiny_model, slots, prefix_slots, step_tokens):
    config = EngineConfig(
        threads=1,
        model=str(tiny_model),
        slots=slots,
        prefix_slots=prefix_slots,
        step_tokens=step_tokens,
        kv_cells=600,
    )
    with OfflineEngine(config.checked()) as engine:
        short = SamplingParams(max_tokens=2, temperature=0, ignore_eos=True)
        assert {len(each.tokens) for each in engine.generate(PROMPTS[:6], short)} == {2}
        assert engine.scheduler.check_integrity() == []


def test_an_impossible_prompt_among_others_is_refused_before_anything_runs(tiny_model):
    with OfflineEngine(EngineConfig(threads=1, model=str(tiny_model))) as engine:
        with pytest.raises(RequestRefused, match="token 258"):
            engine.generate([[65], [258]], GREEDY)
        assert not engine.scheduler.waiting


def test_prompts_beside_decodes_give_what_they_give_alone(runner):
    # Given two sequences that decode, and a prompt that is long enough to be computed apart from them
    beginnings = [list(b"first of two"), list(b"second of two, and longer")]
    prompt = list(b"a third one that comes later, and long: " * 3)[:100]
    alone = []
    for tokens in (*([*each, 65] for each in beginnings), prompt):
        alone += runner.step(plan(row(0, 0, tokens)))
        runner.step(plan(operations=(Free(0),)))
    runner.step(plan(row(0, 0, beginnings[0], draws=False), row(1, 0, beginnings[1], draws=False)))
    # When one step has them all, the prompt between the decodes
    together = runner.step(
        plan(
            row(0, len(beginnings[0]), [65]),
            row(2, 0, prompt),
            row(1, len(beginnings[1]), [65]),
        )
    )
    # Then each draws what it draws alone, in the order of the rows
    assert [each.token for each in together] == [alone[0].token, alone[2].token, alone[1].token]
    assert len({each.token for each in alone}) > 1, "or the order would not show"


def test_logits_are_read_where_they_are_now(runner, monkeypatch):
    import llama_cpp  # here, for the runner has to say first how its threads wait

    [before] = runner.step(plan(row(0, 0, [65])))
    moved = np.zeros((runner.limits.max_slots, runner.limits.vocabulary_size), np.float32)
    moved[0, other := (before.token + 1) % runner.limits.vocabulary_size] = 1
    pointer = moved.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    monkeypatch.setattr(llama_cpp, "llama_get_logits", lambda context: pointer)
    assert [drawn.token for drawn in runner.step(plan(row(0, 1, [65])))] == [other]


def test_where_only_the_second_half_of_a_step_finds_no_room_the_first_is_taken_back(runner):
    # Given cells for a prompt of 100, but for no decode beside it
    runner.step(plan(row(0, 0, [65] * 128, draws=False)))
    runner.step(plan(row(1, 0, [66] * 128, draws=False)))
    runner.step(plan(row(2, 0, [67] * 128, draws=False)))
    runner.step(plan(row(3, 0, [68] * 28, draws=False)))
    step = plan(row(0, 128, [65]), row(4, 0, [69] * 100), row(1, 128, [66]))
    with pytest.raises(CellsExhausted):
        runner.step(step)
    # Then nothing of the step is left behind: once there is room, the same step can be executed
    runner.step(plan(operations=(Free(2),)))
    assert len(runner.step(step)) == 3


def test_decodes_take_a_thread_less_where_a_neighbour_makes_them_slow_and_prompts_do_not(
    tiny_model, monkeypatch
):
    import llama_cpp  # here, for the runner has to say first how its threads wait

    # Given two threads, though so small a model would do with one
    monkeypatch.setattr(ThreadPolicy, "of", lambda *_: ThreadPolicy(2, 2, 2))
    monkeypatch.setattr(ThreadPolicy, "tried", lambda self, *_, **__: self)
    runner = LlamaRunner(EngineConfig(model=str(tiny_model), kv_cells=512, slots=2, step_tokens=128))
    decode, used, is_disturbed, clock = llama_cpp.llama_decode, [], False, 0.0

    def timed(context, batch):
        nonlocal clock
        used.append(llama_cpp.llama_n_threads(context))
        clock += 0.02 if is_disturbed and used[-1] == 2 else 0.002
        return decode(context, batch)

    monkeypatch.setattr(llama_cpp, "llama_decode", timed)
    monkeypatch.setattr("labsupport.engine.runners.llama.time", SimpleNamespace(monotonic=lambda: clock))
    runner.step(plan(row(0, 0, [65] * 8)))
    for start in range(8, 28):
        runner.step(plan(row(0, start, [65])))
    assert set(used) == {2}
    # When what they meet at takes ten times as long with both
    is_disturbed = True
    for start in range(28, 58):
        runner.step(plan(row(0, start, [65])))
    assert used[-1] == 1
    runner.step(plan(row(1, 0, [65] * 8)))
    assert used[-1] == 2
    runner.close()


def test_a_step_that_finds_no_room_says_nothing_of_how_long_decodes_take(runner, monkeypatch):
    learned = []
    monkeypatch.setattr(runner._decode_threads, "took", lambda *step: learned.append(step))
    for slot in range(4):
        runner.step(plan(row(slot, 0, [65] * 128, draws=False)))
    with pytest.raises(CellsExhausted):
        runner.step(plan(row(0, 128, [65])))
    assert not learned
    runner.step(plan(operations=(Free(1),)))
    runner.step(plan(row(0, 128, [65])))
    assert len(learned) == 1


@pytest.mark.parametrize(
    ("weights_mib", "step_tokens", "spare_cores_tried"),
    [(63, 2048, [3]), (64, 512, []), (255, 512, []), (256, 128, [])],
)
def test_what_a_step_takes_and_whether_threads_are_tried_depends_on_how_large_the_weights_are(
    tiny_model, monkeypatch, weights_mib, step_tokens, spare_cores_tried
):
    import llama_cpp  # here, for the runner has to say first how its threads wait

    tried = []

    def record(policy, _seconds_with, *, sequences, spare_cores):
        tried.append(spare_cores)
        assert sequences == 4
        return policy

    monkeypatch.setattr(ThreadPolicy, "tried", record)
    monkeypatch.setattr(llama_cpp, "llama_model_size", lambda _: weights_mib * 2**20)
    runner = LlamaRunner(EngineConfig(model=str(tiny_model), kv_cells=512, slots=4, spare_cores=3))
    assert runner.limits.step_tokens == step_tokens
    assert llama_cpp.llama_n_ubatch(runner._context) == min(step_tokens, 512)
    assert tried == spare_cores_tried
    runner.close()


def test_in_ones_own_process_no_core_is_left_to_http(tiny_model, monkeypatch):
    asked = []
    monkeypatch.setattr(
        ThreadPolicy, "tried", lambda self, *_, spare_cores, **__: asked.append(spare_cores) or self
    )
    offline.generate(tiny_model, [[65]], SamplingParams(max_tokens=1), kv_cells=512)
    with OfflineEngine(EngineConfig(model=str(tiny_model), kv_cells=512)):
        assert asked == [0, 1]
