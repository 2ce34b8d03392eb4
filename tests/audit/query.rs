//! Queries: lists with all filters, paging, agents and totals; every read sees each event whose answer was sent before
//! it.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::harness::{Answer, TestServer, config, next_page};

/// Event number `n`: of one of three agents, with a value for every filter.
fn event(n: usize) -> Value {
    json!({
        "agent_id": format!("agent-{}", n % 3),
        "session_id": format!("session {}", n % 4),
        "action_type": (["TOOL_CALL", "LLM_CALL"][n % 2]),
        "action_status": (["success", "success", "error"][n % 3]),
        "action_name": n.to_string(),
        "labels": {"env": (["prod", "test"][n % 2]), "n": n, "big": n >= 20},
        "timestamp": format!("2026-01-01T00:00:{:02}+01:00", n % 60),
    })
}

fn names(events: &[Value]) -> Vec<usize> {
    events.iter().map(|event| event["action_name"].as_str().unwrap().parse().unwrap()).collect()
}

/// The numbers of the events that a list should contain, newest first, by an obvious implementation.
fn expected(count: usize, wanted: impl Fn(usize) -> bool) -> Vec<usize> {
    (0..count).rev().filter(|&n| wanted(n)).collect()
}

async fn filled(shards: u16, count: usize) -> (TempDir, TestServer) {
    let data = TempDir::new().unwrap();
    let mut config = config(data.path());
    config.shards = shards;
    let server = TestServer::start(&config).await;
    for n in 0..count {
        let stored = server.store(&event(n)).await;
        // A different `received_at` for each event, so that the order is defined across shards, too. The comparison is
        // with the clock that sets `received_at`, which may be set back while the test runs.
        let received = humantime::parse_rfc3339(stored["received_at"].as_str().unwrap()).unwrap();
        while SystemTime::now() < received + Duration::from_millis(2) {
            tokio::task::yield_now().await;
        }
    }
    (data, server)
}

#[tokio::test(flavor = "multi_thread")]
async fn every_filter_lists_exactly_the_matching_events_with_one_shard_and_with_several() {
    for shards in [1, 3] {
        let (_data, server) = filled(shards, 40).await;
        type Wanted = fn(usize) -> bool;
        let cases: &[(&str, Wanted)] = &[
            ("", |_| true),
            ("agent_id=agent-1", |n| n % 3 == 1),
            ("session_id=session%202", |n| n % 4 == 2),
            ("action_type=TOOL_CALL", |n| n % 2 == 0),
            ("action_status=error", |n| n % 3 == 2),
            ("label.env=prod", |n| n % 2 == 0),
            ("label.n=7", |n| n == 7),
            ("label.big=true", |n| n >= 20),
            ("label.env=prod&label.big=true", |n| n % 2 == 0 && n >= 20),
            ("agent_id=agent-1&action_type=LLM_CALL&session_id=session%203", |n| {
                n % 3 == 1 && n % 2 == 1 && n % 4 == 3
            }),
            ("agent_id=nobody", |_| false),
            ("session_id=nobody", |_| false),
            ("timestamp_since=2025-12-31T23:00:30Z", |n| n >= 30),
            ("timestamp_until=2026-01-01T00:00:05%2B01:00&action_type=TOOL_CALL", |n| n < 5 && n % 2 == 0),
        ];
        for (query, wanted) in cases {
            let newest_first = expected(40, wanted);
            assert_eq!(names(&server.list(query).await), newest_first, "{query}");
            let mut oldest_first = newest_first;
            oldest_first.reverse();
            assert_eq!(names(&server.list(&format!("{query}&order=asc")).await), oldest_first, "{query} asc");
        }
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn since_includes_and_until_excludes_events_of_that_received_at() {
    let (_data, server) = filled(2, 12).await;
    let all = server.list("order=asc").await;
    let middle = all[5]["received_at"].as_str().unwrap();
    assert_eq!(names(&server.list(&format!("since={middle}")).await), expected(12, |n| n >= 5));
    assert_eq!(names(&server.list(&format!("until={middle}")).await), expected(12, |n| n < 5));
    assert_eq!(names(&server.list(&format!("since={middle}&agent_id=agent-0")).await), [9, 6]);
    assert_eq!(names(&server.list(&format!("until={middle}&session_id=session%200")).await), [4, 0]);
    assert_eq!(server.list("since=2100-01-01T00:00:00Z").await.len(), 0);
    assert_eq!(server.list("until=2001-01-01T00:00:00Z").await.len(), 0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn pages_contain_every_event_once_also_while_new_ones_are_stored() {
    for shards in [1, 3] {
        let (_data, server) = filled(shards, 30).await;
        for query in ["", "agent_id=agent-2", "action_type=TOOL_CALL", "order=asc", "label.env=test&order=asc"] {
            let whole = names(&server.list(&format!("{query}&limit=1000")).await);
            let mut seen = Vec::new();
            let mut page = format!("/v1/events?{query}&limit=4");
            loop {
                let answer = server.get(&page).await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                seen.extend(names(answer.json().as_array().unwrap()));
                let Some(next) = next_page(&answer.headers) else { break };
                page = next;
                if query.is_empty() {
                    server.store(&event(1000 + seen.len())).await;
                }
            }
            assert_eq!(seen, whole, "{query}");
        }
        assert_eq!(names(&server.list("agent_id=agent-2&offset=2&limit=3").await).len(), 3);
        server.stop().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn offset_applies_to_the_first_page_only() {
    let (_data, server) = filled(1, 10).await;
    let answer = server.get("/v1/events?offset=3&limit=2").await;
    assert_eq!(names(answer.json().as_array().unwrap()), [6, 5]);
    let next = server.get(&next_page(&answer.headers).unwrap()).await;
    assert_eq!(names(next.json().as_array().unwrap()), [4, 3]);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_list_that_is_longer_than_one_chunk_arrives_complete() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for n in 0..30 {
        server.store(&json!({"agent_id": "a", "action_name": n.to_string(), "action_input": "x".repeat(20_000)})).await;
    }
    let listed = server.list("limit=30").await;
    assert_eq!(names(&listed), expected(30, |_| true));
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn every_read_sees_each_event_whose_answer_was_sent_before_it() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    for n in 0..100 {
        let session = format!("s{n}");
        let stored = server.store(&json!({"agent_id": "a", "session_id": session, "labels": {"n": n}})).await;
        let id = stored["id"].as_str().unwrap();
        for query in [format!("session_id={session}"), format!("label.n={n}"), "limit=1".to_owned()] {
            assert_eq!(server.list(&query).await, std::slice::from_ref(&stored), "{query}");
        }
        assert_eq!(server.get(&format!("/v1/events/{id}")).await.json(), stored);
        assert_eq!(server.get("/v1/stats").await.json()["total_events"], n + 1);
    }
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_invalid_parameter_is_refused_and_the_error_names_what_was_expected() {
    let data = TempDir::new().unwrap();
    let server = TestServer::start(&config(data.path())).await;
    let cases = [
        ("/v1/events?limit=0", "limit: expected a number from 1 to 1000, found \"0\""),
        ("/v1/events?limit=1001", "limit: expected a number from 1 to 1000"),
        ("/v1/events?order=up", "order: expected asc or desc"),
        ("/v1/events?since=yesterday", "since: expected an RFC 3339 time"),
        ("/v1/events?cursor=x", "cursor: expected a cursor from a Link header"),
        ("/v1/events?cursor=18446744073709551616", "cursor: expected a cursor from a Link header"),
        ("/v1/events?agentid=a", "unknown parameter \"agentid\"; did you mean agent_id?"),
        ("/v1/events?agent_id=a&agent_id=b", "agent_id: the parameter occurs twice"),
        ("/v1/agents?cursor=zz", "cursor: expected"),
        ("/v1/verify", "expected either agent_id, the id of an agent, or index=true"),
        ("/v1/stats?x=1", "unknown parameter \"x\""),
    ];
    for (call, expected) in cases {
        let answer = server.get(call).await;
        assert_eq!(answer.status, 400, "{call}");
        assert!(answer.error().contains(expected), "{call}: {}", answer.error());
    }
    assert_eq!(server.get("/v1/verify?agent_id=nobody").await.status, 404);
    for n in 0..4 {
        server.store(&event(n)).await;
    }
    for (cursor, older, newer) in [("18446744073709551615", 4, 0), ("3", 3, 1), ("0", 0, 4)] {
        assert_eq!(server.list(&format!("cursor={cursor}")).await.len(), older);
        assert_eq!(server.list(&format!("cursor={cursor}&order=asc")).await.len(), newer);
    }
    assert_eq!(server.get("/v1/events?cursor=1-2").await.status, 400);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn agents_and_totals_are_counted() {
    let (_data, server) = filled(2, 25).await;
    let mut seen = HashSet::new();
    let mut page = "/v1/agents?limit=2".to_owned();
    loop {
        let answer = server.get(&page).await;
        for agent in answer.json().as_array().unwrap() {
            let id = agent["agent_id"].as_str().unwrap();
            assert!(seen.insert(id.to_owned()), "{id} twice");
            let chain = server.list(&format!("agent_id={id}&order=asc")).await;
            let (first, last) = (&chain[0], chain.last().unwrap());
            assert_eq!(agent["event_count"], chain.len());
            assert_eq!(agent["head_sequence"], last["sequence"]);
            assert_eq!(agent["head_hash"], last["hash"]);
            assert_eq!(agent["first_activity"], first["received_at"]);
            assert_eq!(agent["last_activity"], last["received_at"]);
            assert_eq!(agent["chain_valid"], Value::Null);
        }
        let Some(next) = next_page(&answer.headers) else { break };
        page = next;
    }
    assert_eq!(seen.len(), 3);
    let stats = server.get("/v1/stats").await.json();
    let expected = json!({"total_events": 25, "events_dropped": 0, "events_last_24h": 25, "active_agents": 3, "chain_health": null});
    assert_eq!(stats, expected);

    let verdict = server.get("/v1/verify?agent_id=agent-1").await.json();
    let chain = server.list("agent_id=agent-1").await;
    let expected =
        json!({"valid": true, "agent_id": "agent-1", "events_verified": chain.len(), "head_hash": chain[0]["hash"]});
    assert_eq!(verdict, expected);
    let agents = server.get("/v1/agents").await.json();
    let verified: Vec<_> = agents.as_array().unwrap().iter().filter(|agent| agent["chain_valid"] == true).collect();
    assert_eq!((verified.len(), &verified[0]["agent_id"]), (1, &json!("agent-1")));
    assert_eq!(server.get("/v1/stats").await.json()["chain_health"], 1.0);
    server.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_index_that_is_lost_or_has_another_format_is_rebuilt() {
    let data = TempDir::new().unwrap();
    let config = config(data.path());
    let server = TestServer::start(&config).await;
    for n in 0..20 {
        server.store(&event(n)).await;
    }
    assert_eq!(server.list("action_type=TOOL_CALL").await.len(), 10);
    server.stop().await.unwrap();
    for damage in ["lost", "old format", "ahead of the events"] {
        crate::audit::verify::edit(data.path(), |db| {
            let index = db.cf_handle("index").unwrap();
            let rows: Vec<_> =
                db.iterator_cf(index, rocksdb::IteratorMode::Start).map(|row| row.unwrap().0.to_vec()).collect();
            for key in rows {
                match (damage, key.starts_with(b"cursor")) {
                    ("lost", _) => db.delete_cf(index, key).unwrap(),
                    ("old format", true) => db.put_cf(index, key, [0, 0, 0, 0, 0, 0, 0, 0, 0, 20]).unwrap(),
                    (_, true) => db.put_cf(index, key, [0, 1, 0, 0, 0, 0, 0, 0, 9, 9]).unwrap(),
                    (_, false) => {}
                }
            }
        });
        let server = TestServer::start(&config).await;
        let answer = Answer::of(
            server.client.get(format!("{}/v1/events?action_type=TOOL_CALL", server.url)).send().await.unwrap(),
        )
        .await;
        assert_eq!(answer.json().as_array().unwrap().len(), 10, "{damage}");
        server.stop().await.unwrap();
    }
}
