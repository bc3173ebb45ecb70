//! The OpenAPI document of a service (`/openapi.json`) and Swagger UI (`/docs`).
//!
//! The document is generated from the handlers and the types of their answers. Swagger UI is embedded in the binary.

use std::sync::Arc;

use actix_web::http::StatusCode;
use actix_web::{HttpRequest, HttpResponse, web};
use utoipa::OpenApi;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::{Content, OpenApi as Document, Ref, RefOr, Required};
use utoipa_swagger_ui::{Config, Url};

use super::problem::{Problem, ProblemShape};
use super::resources::readable;
use super::tokens::guard;
use super::view::ServiceView;

/// Routes and schemas of all services.
#[derive(OpenApi)]
#[openapi(
    info(
        title = "ESS, the Event Spawning System",
        description = "Events of ad platforms, from webhook to report."
    ),
    paths(
        super::service_routes::live,
        super::service_routes::ready,
        super::service_routes::metrics,
        super::service_routes::actors,
        super::service_routes::restart,
    ),
    components(schemas(ProblemShape))
)]
struct Common;

/// The document of a service, as JSON. `schemas` is a JSON object of handwritten schemas.
fn document(service: Document, schemas: &str) -> Result<String, serde_json::Error> {
    let mut document = Common::openapi();
    document.merge(service);
    complete(&mut document);
    let bearer = SecurityScheme::Http(HttpBuilder::new().scheme(HttpAuthScheme::Bearer).build());
    document.components.get_or_insert_default().add_security_scheme("bearer", bearer);
    let mut document = serde_json::to_value(&document)?;
    let schemas: serde_json::Map<String, serde_json::Value> = serde_json::from_str(schemas)?;
    if let Some(known) = document["components"]["schemas"].as_object_mut() {
        known.extend(schemas);
    }
    serde_json::to_string(&document)
}

/// Adds `/openapi.json` and `/docs`, which describe the routes of `service` and of all services. Both require a
/// bearer token if the service has tokens. `schemas` is a JSON object of handwritten schemas.
pub fn describe(config: &mut web::ServiceConfig, service: Document, schemas: &str) {
    let document = web::Bytes::from(document(service, schemas).unwrap_or_else(|error| {
        tracing::error!(%error, "the OpenAPI document could not be generated; /openapi.json is empty");
        "{}".to_owned()
    }));
    let pages = Arc::new(Config::new([Url::new("ESS", "../openapi.json")]));
    config.service(readable("/openapi.json", move |request: HttpRequest, view: web::Data<ServiceView>| {
        let document = document.clone();
        async move {
            match guard(&request, &view.tokens) {
                Ok(()) => HttpResponse::Ok().content_type("application/json").body(document),
                Err(problem) => problem.respond(&request),
            }
        }
    }));
    config.service(readable("/docs", || async {
        HttpResponse::PermanentRedirect().insert_header(("location", "/docs/")).finish()
    }));
    config.service(readable(
        "/docs/{file:.*}",
        move |request: HttpRequest, view: web::Data<ServiceView>, file: web::Path<String>| {
            let pages = pages.clone();
            async move {
                page(&request, &view, &file, pages).unwrap_or_else(|problem| problem.respond(&request))
            }
        },
    ));
}

/// Declares every answer with a status of 400 or more as a problem, and every request body as required.
fn complete(document: &mut Document) {
    let items = document.paths.paths.values_mut();
    for operation in items.flat_map(|item| [&mut item.get, &mut item.post]).flatten() {
        // utoipa leaves this out; no route here takes an optional body.
        if let Some(RefOr::T(body)) = &mut operation.request_body {
            body.required = Some(Required::True);
        }
        for (status, response) in &mut operation.responses.responses {
            if let RefOr::T(response) = response
                && status.parse::<u16>().is_ok_and(|status| status > 399)
            {
                response
                    .content
                    .entry("application/problem+json".to_owned())
                    .or_insert_with(|| Content::new(Some(Ref::from_schema_name("Problem"))).into());
            }
        }
    }
}

fn page(
    request: &HttpRequest,
    view: &ServiceView,
    file: &str,
    pages: Arc<Config<'static>>,
) -> Result<HttpResponse, Problem> {
    guard(request, &view.tokens)?;
    match utoipa_swagger_ui::serve(file, pages) {
        Ok(Some(file)) => {
            Ok(HttpResponse::Ok().content_type(file.content_type).body(file.bytes.into_owned()))
        }
        Ok(None) => Err(Problem::new(StatusCode::NOT_FOUND, format!("there is no page {file}"))),
        Err(error) => Err(Problem::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    }
}
