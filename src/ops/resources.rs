//! Resources as HTTP has them: their methods, 404 and 405, OPTIONS, and entity tags.

use actix_web::http::header::{self, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Responder, web};

use super::problem::Problem;

/// True if `If-None-Match` names the tag, so that the answer is 304 (RFC 9110, 13.1.2).
pub fn client_has(request: &HttpRequest, tag: &header::EntityTag) -> bool {
    use header::Header;
    match header::IfNoneMatch::parse(request) {
        Ok(header::IfNoneMatch::Any) => true,
        Ok(header::IfNoneMatch::Items(tags)) => tags.iter().any(|known| known.weak_eq(tag)),
        Err(_) => false,
    }
}

/// The answer for an unknown path.
pub fn not_found(request: &HttpRequest) -> HttpResponse {
    Problem::new(StatusCode::NOT_FOUND, format!("there is nothing at {}", request.path())).respond(request)
}

/// Answers a request for an unknown path, and `OPTIONS *`.
pub(super) async fn unmatched(request: HttpRequest) -> HttpResponse {
    if request.method() == Method::OPTIONS && request.path() == "*" {
        return allowing("GET, HEAD, POST, OPTIONS");
    }
    not_found(&request)
}

/// The answer to OPTIONS (RFC 9110, 9.3.7).
fn allowing(allowed: &'static str) -> HttpResponse {
    HttpResponse::NoContent().insert_header((header::ALLOW, allowed)).finish()
}

/// A resource that answers other methods with 405 and `Allow`, and OPTIONS with 204. `allowed` includes OPTIONS.
pub fn resource(path: &str, allowed: &'static str) -> actix_web::Resource {
    web::resource(path.to_owned()).default_service(web::to(move |request: HttpRequest| async move {
        if request.method() == Method::OPTIONS {
            return allowing(allowed);
        }
        let detail = format!("{} is not allowed at {}", request.method(), request.path());
        let mut response = Problem::new(StatusCode::METHOD_NOT_ALLOWED, detail).respond(&request);
        response.headers_mut().insert(header::ALLOW, HeaderValue::from_static(allowed));
        response
    }))
}

/// A resource for GET and HEAD.
pub fn readable<F, Args>(path: &str, handler: F) -> actix_web::Resource
where
    F: Handler<Args> + Clone,
    Args: FromRequest + 'static,
    F::Output: Responder + 'static,
{
    resource(path, "GET, HEAD, OPTIONS").route(web::get().to(handler.clone())).route(web::head().to(handler))
}
