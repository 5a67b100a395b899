"""`pipeline.py run` over Kafka: the same results to the bit, and what looks at them finds them by the folder alone."""

from __future__ import annotations

import json
import shutil
import uuid
from pathlib import Path

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient

from servers.base import free_port
from servers.kafka import KafkaServer
from servers.redis import RedisServer
from tests.end_to_end.test_run import ENRICHMENT, GOLDEN, assert_rows_equal, assert_vectors_equal, run, run_to_end
from tests.end_to_end.test_serve import event, predictions, serving
from tests.required import require


@pytest.fixture
def url(broker: KafkaServer) -> str:
    return broker.url(f"test-{uuid.uuid4().hex}")


def test_golden_events_come_out_to_the_bit_and_the_folder_knows_where_they_are(tmp_path: Path, url: str) -> None:
    data, logs = tmp_path / "data", tmp_path / "logs"
    source = str(GOLDEN / "edge_events.ndjson")
    arguments = ("run", "--input", source, *ENRICHMENT, "--data", str(data))
    first = run_to_end(*arguments, "--streams", url, "--logs", str(logs), "--workers", "2")
    assert_vectors_equal(logs, "edge_")
    assert_rows_equal(data, "edge_", tmp_path)
    assert not (data / "streams").exists() and not (data / "events").exists()

    again = run_to_end(*arguments)
    assert (again["events"], again["predictions"]) == (0, 0)
    assert again["folder"] == first["folder"]

    found = json.loads(run("status", "--json", "--data", str(data)).stdout)
    assert found["places"] == {"streams": url, "tables": f"sqlite://{data}/tables", "logs": str(logs)}
    assert found["functions"]["event-handler"]["lag"] == 0
    assert found["logs"]["events"]["rows"] == first["events"]
    assert url in run("status", "--data", str(data)).stdout.replace("\n", "")
    peeked = run("peek", "inference", "--last", "1", "--data", str(data)).stdout.splitlines()
    assert "about_to_churn" in json.loads(peeked[-1])
    replayed = run("replay", "--data", str(data))
    assert replayed.returncode == 0, replayed.stdout + replayed.stderr

    stranger = run("run", *arguments[1:3], "--data", str(tmp_path / "other"), "--streams", url, "--fresh")
    assert stranger.returncode == 1
    assert f"{url} has streams of another pipeline" in stranger.stderr
    assert json.loads(run("status", "--json", "--data", str(data)).stdout)["functions"] == found["functions"]

    other = run(*arguments, "--streams", f"{url}-other")
    assert other.returncode == 1
    assert url in other.stderr and "--streams" in other.stderr

    fresh = run_to_end(*arguments, "--fresh")
    assert (fresh["events"], fresh["predictions"]) == (first["events"], first["predictions"])
    begun = json.loads(run("status", "--json", "--data", str(data)).stdout)
    assert begun["places"] == found["places"]


def test_older_tables_are_refused_and_catch_up_when_the_group_begins_anew(
    tmp_path: Path, broker: KafkaServer, url: str
) -> None:
    source, data, older = tmp_path / "events.ndjson", tmp_path / "data", tmp_path / "older"
    lines = (GOLDEN / "edge_events.ndjson").read_bytes().splitlines(keepends=True)
    arguments = ("run", "--input", str(source), *ENRICHMENT, "--data", str(data), "--streams", url)
    source.write_bytes(b"".join(lines[: len(lines) // 2]))
    run_to_end(*arguments)
    shutil.copytree(data / "tables", older)
    source.write_bytes(b"".join(lines))
    run_to_end(*arguments)
    shutil.rmtree(data / "tables")
    older.rename(data / "tables")
    refused = run(*arguments)
    assert refused.returncode == 1
    assert "the effects of the messages in between are lost" in refused.stderr and "restore" in refused.stderr

    group = f"{url.rpartition('/')[2]}.stream-to-features"  # as kafka-consumer-groups.sh --delete does
    admin = AdminClient({"bootstrap.servers": broker.address})
    admin.delete_consumer_groups([group])[group].result(30)
    run_to_end(*arguments)
    assert_vectors_equal(data, "edge_")
    assert_rows_equal(data, "edge_", tmp_path)


def test_service_takes_events_by_http_and_from_any_producer(tmp_path: Path, broker: KafkaServer, url: str) -> None:
    require(RedisServer)
    folder, topic = tmp_path / "data", f"{url.rpartition('/')[2]}.generated"
    with RedisServer() as redis:
        places = ("--streams", url, "--tables", redis.url("churn"))
        with serving(folder, *places) as service:
            first = [event("registration", 0), event("purchase", 1, amount=50), event("bet", 2, bet_amount=3)]
            assert service.ask("/events", b"\n".join(first)) == (202, {"accepted": 3})
            assert predictions(folder, 1)["bet_sum"].tolist() == [3]
            producer = Producer({"bootstrap.servers": broker.address})
            producer.produce(topic, event("bet", 3, bet_amount=4), partition=7)  # another one than the user's
            assert producer.flush(30) == 0
            assert predictions(folder, 2)["bet_sum"].tolist() == [3, 7]
            service.stop()
        with serving(folder) as service:
            assert service.ask("/events", event("bet", 4, bet_amount=5)) == (202, {"accepted": 1})
            assert predictions(folder, 3)["bet_sum"].tolist() == [3, 7, 12]
            service.stop()
        replayed = run("replay", "--data", str(folder))
        assert replayed.returncode == 0, replayed.stdout + replayed.stderr


def test_broker_that_is_not_there_is_told_and_leaves_no_folder(tmp_path: Path) -> None:
    address = f"127.0.0.1:{free_port()}"
    told = run("run", "--streams", f"kafka://{address}/churn?timeout=1", "--data", str(tmp_path / "data"))
    assert told.returncode == 1
    assert address in told.stderr and "Traceback" not in told.stderr
    assert not (tmp_path / "data").exists()
