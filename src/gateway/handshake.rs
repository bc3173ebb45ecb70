//! The handshake of a platform: `GET` on its webhook's path.

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};

use crate::config::Secret;
use crate::ops::http::{Problem, constant_time_eq};
use crate::source::Handshake;

/// Returns the challenge if the request has the configured token, or none is configured.
pub(super) fn answer(request: &HttpRequest, handshake: &Handshake, token: Option<&Secret>) -> HttpResponse {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(request.query_string());
    let pairs = pairs.map(web::Query::into_inner).unwrap_or_default();
    let value = |name: &str| pairs.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
    let sent = value(handshake.token).unwrap_or_default();
    let allowed = token.is_none_or(|token| constant_time_eq(token.expose().as_bytes(), sent.as_bytes()));
    let (mode, subscribe) = handshake.mode;
    match value(handshake.challenge).filter(|_| value(mode) == Some(subscribe)) {
        Some(challenge) if allowed => {
            HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(challenge.to_owned())
        }
        Some(_) => {
            let detail = format!("{} is not {}", handshake.token, handshake.setting.name);
            Problem::new(StatusCode::FORBIDDEN, detail).respond(request)
        }
        None => {
            let detail = format!("{mode}={subscribe} and {} are needed", handshake.challenge);
            Problem::new(StatusCode::BAD_REQUEST, detail).respond(request)
        }
    }
}

#[cfg(test)]
mod tests {
    use actix_web::test::TestRequest;

    use super::*;
    use crate::source::Source;

    #[test]
    fn a_challenge_is_returned_to_the_configured_token_alone() {
        let mut tried = 0;
        for handshake in Source::all().filter_map(Source::handshake) {
            let (mode, subscribe) = handshake.mode;
            let (challenge, token) = (handshake.challenge, handshake.token);
            let secret = Secret::from("right".to_owned());
            for (query, secret, status) in [
                (format!("{mode}={subscribe}&{challenge}=4&{token}=right"), Some(&secret), 200),
                (format!("{mode}={subscribe}&{challenge}=4&{token}=wrong"), Some(&secret), 403),
                (format!("{mode}={subscribe}&{challenge}=4"), Some(&secret), 403),
                (format!("{mode}={subscribe}&{challenge}=4"), None, 200),
                (format!("{mode}=other&{challenge}=4&{token}=right"), Some(&secret), 400),
                (format!("{mode}={subscribe}&{token}=right"), Some(&secret), 400),
                (String::new(), None, 400),
            ] {
                let request = TestRequest::with_uri(&format!("/?{query}")).to_http_request();
                assert_eq!(answer(&request, handshake, secret).status(), status, "{query}");
                tried += 1;
            }
        }
        assert!(tried > 0);
    }
}
