//! The ladder in an outage of every provider: nobody is turned away while a local model is there, and nobody gets the
//! weaker answer while a better one was to be had.

use super::*;

/// A local model below a remote one; requests begin with the remote one, and a degraded answer may be of any quality.
const LADDER: &str = r#"
[providers.p]
kind = "openai"
base_url = "http://127.0.0.1:1/v1"
[targets.house]
provider = "local"
artifact = "smollm2-135m-instruct-q4_1"
[targets.remote]
provider = "p"
model = "m"
[routes.auto]
tiers = [["house"], ["remote"]]
degrade = ["weaker", "local"]
degrade_floor = 0.0
"#;

/// Requests, one a second.
const REQUESTS: u32 = 10_000;
/// The provider is down from and to.
const DOWN: std::ops::Range<u32> = 3_000..4_800;

#[tokio::test(start_paused = true)]
async fn ten_thousand_requests_through_an_outage_of_all_providers() {
    let world = World::new(
        LADDER,
        vec![Script::answer("house")],
        vec![Script::answer("remote")],
    );
    for target in world.targets.iter() {
        target.state.configure(&world.plan.breaker, None);
    }
    let (mut by_house, mut degraded, mut unmarked) = (0, 0, 0);
    for i in 0..REQUESTS {
        match i {
            i if i == DOWN.start => {
                let refused = AttemptError::new(Fault::Connect, "connection refused");
                world.strong.turn(Script::refuse(refused));
            }
            i if i == DOWN.end => world.strong.turn(Script::answer("remote")),
            _ => {}
        }
        let text = if i % 2 == 0 { STREAM } else { WHOLE };
        // Nobody is turned away: an error would end the test here.
        let reply = run(world.work(text)).await.unwrap();
        let head = reply.head.clone();
        let house = match reply.body {
            Answer::Stream(driver) => {
                let (bytes, error, _) = drain(driver).await;
                assert!(error.is_none() && said(&bytes).1, "{bytes}");
                said(&bytes).0 == "house"
            }
            Answer::Whole(body) => String::from_utf8_lossy(&body).contains("house"),
            Answer::Shared(_) => panic!("nobody reads along"),
        };
        by_house += u32::from(house);
        degraded += u32::from(head.degraded.is_some());
        unmarked += u32::from(house != head.degraded.is_some());
        assert!(house || !DOWN.contains(&i), "nobody else was there to answer");
        tokio::time::advance(Duration::from_secs(1)).await;
    }
    let down = DOWN.end - DOWN.start;
    assert_eq!(unmarked, 0, "what is less is marked, and only that");
    assert_eq!(by_house, degraded);
    assert!(
        (down..=down + REQUESTS / 100).contains(&degraded),
        "{degraded} degraded, {down} came in the outage"
    );
    let asked_in_vain = world.strong.seen().len() as u32 - (REQUESTS - degraded);
    assert!(
        asked_in_vain < 60,
        "{asked_in_vain} calls of a dead provider in {down} s"
    );
}

#[tokio::test(start_paused = true)]
async fn a_floor_that_the_house_does_not_reach_is_an_honest_error() {
    let text = LADDER.replace("degrade_floor = 0.0", "degrade_floor = 0.9");
    let refused = AttemptError::new(Fault::Connect, "connection refused");
    let world = World::new(
        &text,
        vec![Script::answer("house")],
        vec![Script::refuse(refused)],
    );
    let failure = run(world.work(WHOLE)).await.unwrap_err();
    assert_eq!(failure.error.status().as_u16(), 502, "{failure:?}");
    assert_eq!(world.weak.seen().len(), 0);
}
