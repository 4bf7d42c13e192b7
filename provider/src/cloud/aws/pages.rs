//! The one reader of answers that come in pages, whichever API of AWS gives them: a token goes in, a page comes out, and
//! there is an end to it.

use std::future::Future;

use crate::cloud::CloudError;

/// A page: what it holds, and the token of the next one.
pub(super) type Page<T> = (Vec<T>, Option<String>);

/// Every page of a call, `most` at most.
///
/// # Errors
/// What the first page that failed was answered: a part is none. Also when the pages do not end.
pub(super) async fn all<T, F>(
    call: &str,
    most: u32,
    page: impl FnMut(Option<String>) -> F,
) -> Result<Vec<T>, CloudError>
where
    F: Future<Output = Result<Page<T>, CloudError>>,
{
    let unending = || CloudError::Unknown(format!("{call}: more than {most} pages"));
    up_to(most, page).await?.ok_or_else(unending)
}

/// The same for a call that can be done without: None when there are more pages.
///
/// # Errors
/// What the first page that failed was answered.
pub(super) async fn up_to<T, F>(
    most: u32,
    mut page: impl FnMut(Option<String>) -> F,
) -> Result<Option<Vec<T>>, CloudError>
where
    F: Future<Output = Result<Page<T>, CloudError>>,
{
    let mut found = Vec::new();
    let mut token = None;
    for _ in 0..most {
        let (items, next) = page(token).await?;
        found.extend(items);
        token = next.filter(|token| !token.is_empty());
        if token.is_none() {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test]
    async fn pages_are_read_to_their_end_and_no_further_than_the_limit() {
        let numbered = |token: Option<String>, last: u32| {
            let number: u32 = token.map_or(1, |token| token.parse().unwrap());
            // An empty token is an end, too: EC2 writes it so.
            let next = if number == last { String::new() } else { (number + 1).to_string() };
            ready(Ok((vec![number], Some(next))))
        };
        assert_eq!(all("X", 3, |token| numbered(token, 3)).await, Ok(vec![1, 2, 3]));
        let endless = all("X", 3, |token| numbered(token, 0)).await;
        assert_eq!(endless, Err(CloudError::Unknown("X: more than 3 pages".to_owned())));
        let failed = all::<u32, _>("X", 3, |_| ready(Err(CloudError::Unknown("no".to_owned())))).await;
        assert_eq!(failed, Err(CloudError::Unknown("no".to_owned())));
    }
}
