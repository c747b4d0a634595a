"""Engines that fail, processes that are told to end: what clients see, what probes see, the exit status."""

import contextlib
import signal
import socket
import sys
import threading
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).with_name("faulty_server.py")


@pytest.fixture
def faulty(start, prompted_folder, tmp_path):
    control = tmp_path / "fault"

    def begin(*options):
        server = start([prompted_folder], *options, program=[sys.executable, str(PROGRAM), str(control)])
        server.fault = lambda text: control.write_text(text)
        return server

    return begin


def ask(server, text="a text"):
    return server.post("/v1/embeddings", {"input": text, "encoding_format": "base64"})


def in_threads(count, call):
    results = [None] * count

    def run(number):
        try:
            results[number] = call(number)
        except OSError as error:
            results[number] = error

    threads = [threading.Thread(target=run, args=(number,)) for number in range(count)]
    for thread in threads:
        thread.start()
    return threads, results


def test_a_failed_batch_fails_only_its_requests(faulty):
    server = faulty()
    server.fault("raise-on-long")
    before = ask(server)
    long = ask(server, ["word " * 60] * 4)
    assert (before.status, long.status) == (200, 500)
    assert "error" in long.json
    assert "injected" not in long.body.decode(), "the engine's words are for the log"
    tei = server.post("/embed", {"inputs": ["word " * 60] * 4})
    assert (tei.status, tei.json["error_type"]) == (424, "Backend")
    assert ask(server).body == before.body
    assert server.get("/health").status == 200
    assert server.metric('te_request_failure{err="inference"}') == 2
    server.wait_for(lambda: any("injected" in line.get("detail", "") for line in server.lines()))
    assert server.stop() == 0


@pytest.mark.parametrize("fault", ["raise", "nan"])
def test_an_engine_that_fails_is_not_ready_until_it_is_well(faulty, fault):
    server = faulty()
    assert server.get("/health").status == 200
    server.fault(fault)
    reply = ask(server)
    assert reply.status == 500
    server.wait_for(lambda: server.get("/health").status == 503, 10)
    server.fault("")
    server.wait_for(lambda: server.get("/health").status == 200, 10)
    assert ask(server).status == 200
    assert server.stop() == 0


@pytest.mark.parametrize("fault", ["raise", "nan", "other-bits", "end-thread"])
def test_an_engine_that_stays_ill_ends_the_process_with_70(faulty, fault):
    server = faulty()
    server.fault(fault)
    ask(server)
    assert server.stop(0, timeout=60) == 70
    assert "ending with status 70" in server.said


def test_a_hung_engine_ends_the_process_with_70_and_its_clients_are_told(faulty):
    server = faulty("--engine-timeout", "1", "--drain-timeout", "5")
    server.fault("hang")
    threads, replies = in_threads(4, lambda number: ask(server))
    assert server.stop(0, timeout=30) == 70
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [503] * 4
    assert {"retry-after"} <= replies[0].headers.keys()


@contextlib.contextmanager
def starved(process, *, runs=0.02, stands=0.2):
    """The process gets a small part of the time, as beside noisy neighbours, whatever else the machine does."""
    ended = threading.Event()

    def starve():
        while not ended.wait(runs):
            process.send_signal(signal.SIGSTOP)
            time.sleep(stands)
            process.send_signal(signal.SIGCONT)

    thread = threading.Thread(target=starve)
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join()


def test_a_starved_engine_is_not_taken_for_a_dead_one(faulty):
    """By the clock, a batch of half a second of work takes far longer than the limit. It gets on: it is waited for."""
    server = faulty("--engine-timeout", "3")
    server.fault("spin 0.5")
    begun = time.monotonic()
    with starved(server.process):
        reply = ask(server)
    assert time.monotonic() - begun > 4, "it was not starved"
    assert reply.status == 200
    assert server.get("/health").status == 200
    assert server.stop() == 0


def test_a_process_that_was_stopped_goes_on(faulty):
    """As a virtual machine does that was paused, with a batch in hand."""
    server = faulty("--engine-timeout", "4")
    server.fault("slow 6")
    threads, replies = in_threads(1, lambda number: ask(server))
    server.wait_for(lambda: server.metric('bgert_queue_tokens{model="tiny-encoder",lane="interactive"}') > 0)
    server.process.send_signal(signal.SIGSTOP)
    time.sleep(5)
    server.process.send_signal(signal.SIGCONT)
    for thread in threads:
        thread.join()
    assert replies[0].status == 200
    time.sleep(1)  # the next looks at the engine
    assert server.get("/health").status == 200
    assert server.stop() == 0


def test_an_engine_that_spins_for_ever_ends_the_process_with_70(faulty):
    server = faulty("--engine-timeout", "1", "--drain-timeout", "5")
    server.fault("spin 1000")
    threads, replies = in_threads(2, lambda number: ask(server))
    assert server.stop(0, timeout=60) == 70
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [503] * 2
    assert "--engine-timeout" in server.said


def test_sigterm_finishes_what_was_begun_and_takes_nothing_more(faulty):
    server = faulty()
    server.fault("slow 1.5")
    threads, replies = in_threads(6, lambda number: ask(server, f"text {number}"))
    time.sleep(0.7)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    with pytest.raises(OSError, match=r".*"):
        ask(server)
    assert server.stop(0) == 0
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [200] * 6
    assert {reply.headers["connection"] for reply in replies} == {"close"}


def test_drain_delay_goes_on_serving_while_probes_see_red(faulty):
    server = faulty("--drain-delay", "2")
    server.process.send_signal(signal.SIGTERM)
    server.wait_for(lambda: server.get("/health").status == 503, 5)
    assert ask(server).status == 200
    assert server.get("/health/live").status == 200
    assert server.stop(0) == 0


def test_drain_timeout_ends_with_503_for_what_is_left(faulty):
    server = faulty("--drain-timeout", "0.5")
    server.fault("slow 5")
    threads, replies = in_threads(2, lambda number: ask(server))
    time.sleep(0.7)
    begun = time.monotonic()
    assert server.stop() == 0
    assert time.monotonic() - begun < 10
    for thread in threads:
        thread.join()
    assert [reply.status for reply in replies] == [503, 503]


def test_a_second_signal_ends_at_once(faulty):
    server = faulty()
    server.fault("slow 20")
    threads, _ = in_threads(1, lambda number: ask(server))
    time.sleep(0.7)
    server.process.send_signal(signal.SIGTERM)
    time.sleep(0.3)
    assert server.stop(signal.SIGTERM, timeout=5) == 1
    for thread in threads:
        thread.join()


def test_requests_end_at_their_deadline_and_are_not_run(faulty):
    server = faulty("--request-timeout", "30")
    server.fault("slow 10")
    begun = time.monotonic()
    hurried = {"x-request-timeout": "1"}
    threads, replies = in_threads(8, lambda number: server.post("/embed", {"inputs": f"text {number}"}, hurried))
    for thread in threads:
        thread.join()
    assert time.monotonic() - begun < 9, "they waited for the engine"
    assert {reply.status for reply in replies} == {504}
    before = server.metric("te_batch_next_size_sum")
    server.fault("")
    assert ask(server).status == 200
    # Two threads had a batch in hand; of the eight texts, what was in neither is never run.
    assert server.metric("te_batch_next_size_sum") - before <= 1 + 8
    assert server.metric('te_request_failure{err="dropped"}') == 8
    server.wait_for(lambda: server.metric('bgert_queue_tokens{model="tiny-encoder",lane="interactive"}') == 0)


def test_a_client_may_shorten_its_deadline_and_not_lengthen_it():
    from bgert.serve.messages import Request
    from bgert.serve.service import Service
    from bgert.serve.settings import Settings

    service = Service(Settings(folders=("m",), request_timeout=10))

    def seconds(**headers):
        return service.seconds(Request("", headers={name.replace("_", "-"): text for name, text in headers.items()}))

    assert seconds() == 10
    assert seconds(x_request_timeout="3") == 3
    assert seconds(x_request_timeout="30") == 10
    assert seconds(x_stainless_read_timeout="600") == 10
    assert seconds(x_stainless_read_timeout="600", x_request_timeout="2.5") == 2.5
    assert (
        seconds(x_request_timeout="soon") == seconds(x_request_timeout="-1") == seconds(x_request_timeout="nan") == 10
    )


def test_while_it_loads_it_says_so(start, prompted_folder, demo_folder, tmp_path):
    control = tmp_path / "fault"
    control.write_text("slow 1")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = start(
        [prompted_folder],
        "--port",
        str(port),
        program=[sys.executable, str(PROGRAM), str(control)],
        wait=False,
    )
    server.port = port

    def listening():
        try:
            return server.get("/health/live").status == 200
        except OSError:
            return False

    server.wait_for(listening)
    assert server.get("/health").status == 503
    reply = ask(server)
    assert reply.status == 503
    assert "starting" in reply.json["error"]["message"]
    assert "retry-after" in reply.headers
    server.wait_until_ready()
    assert server.get("/health").status == 200
    assert server.stop() == 0


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--port", "99999"], "--port"),
        (["--name", "a", "--name", "b"], "--name"),
        (["--max-body", "0"], "--max-body"),
        (["--api-key-file", "/no/such/file"], "/no/such/file"),
        (["--device", "cuda:99"], ""),
        (["--request-timeout", "soon"], "seconds"),
        (["--uds", "/tmp/x", "--host", "::1"], "--uds"),
    ],
)
def test_mistakes_at_the_start_are_one_line_and_status_2(start, prompted_folder, options, words):
    server = start([prompted_folder], *options, wait=False)
    assert server.stop(0) == 2
    (line,) = server.said.splitlines()
    assert line.startswith("bgert: error: ")
    assert words in line


def test_two_folders_of_one_name_are_refused(start, prompted_folder):
    server = start([prompted_folder, prompted_folder], wait=False)
    assert server.stop(0) == 2
    assert "--name" in server.said.splitlines()[-1]


def test_variables_are_options(start, prompted_folder, tmp_path):
    environment = {"BGERT_FOLDERS": str(prompted_folder), "BGERT_NAME": "from-env", "BGERT_ACCESS_LOG": "0"}
    server = start([], environment=environment)
    assert server.get("/v1/models").json["data"][0]["id"] == "from-env"
    assert server.stop(signal.SIGINT) == 0
    assert server.lines() == []
    wrong = start([prompted_folder], environment={"BGERT_MAX_BODY": "many"}, wait=False)
    assert wrong.stop(0) == 2
    assert "BGERT_MAX_BODY" in wrong.said
