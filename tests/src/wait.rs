//! Waiting for what comes true by itself: asked again and again, never slept for.

use std::time::Duration;

/// Pause between two questions: short against what a test waits for, long against the asking.
const ASK_EVERY: Duration = Duration::from_millis(20);

/// Asks until there is an answer, and returns it.
///
/// # Panics
///
/// When there is none within `deadline`; the message says `what` was waited for.
pub async fn eventually<T>(
    deadline: Duration,
    what: &str,
    mut ask: impl AsyncFnMut() -> Option<T>,
) -> T {
    let answer = async {
        loop {
            if let Some(answer) = ask().await {
                return answer;
            }
            tokio::time::sleep(ASK_EVERY).await;
        }
    };
    let answer = tokio::time::timeout(deadline, answer).await;
    answer.unwrap_or_else(|_| panic!("not within {deadline:?}: {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_comes_true_at_the_third_question_is_returned() {
        let mut asked = 0;
        let answer = eventually(Duration::from_secs(5), "third question", async || {
            asked += 1;
            (asked == 3).then_some(asked)
        });
        assert_eq!(answer.await, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "not within 50ms: pigs fly")]
    async fn what_never_comes_true_is_named() {
        eventually(Duration::from_millis(50), "pigs fly", async || None::<()>).await;
    }
}
