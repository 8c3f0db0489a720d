//! The OpenAPI document, made from the route table so that it cannot drift from what is served.

use axum::Json;
use serde_json::{Map, Value, json};

use super::route::{Parameter, Place, Route, table};

/// `GET /openapi.json`
pub async fn serve() -> Json<Value> {
    Json(document(&table()))
}

/// Describes these routes.
pub fn document(routes: &[Route]) -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for route in routes {
        let path = paths.entry(route.path.to_owned()).or_insert_with(|| Value::Object(Map::new()));
        if let Some(path) = path.as_object_mut() {
            path.insert(route.method.to_owned(), operation(route));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Outrigger operator API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "schemas": {"Error": error_schema()},
        },
    })
}

fn operation(route: &Route) -> Value {
    let failure = json!({
        "description": "A failure.",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}},
    });
    let mut operation = json!({
        "operationId": route.operation,
        "summary": route.about,
        "parameters": route.parameters.iter().map(parameter).collect::<Vec<_>>(),
        "security": if route.public { json!([]) } else { json!([{"token": []}]) },
        "responses": {"200": {"description": route.answer}, "default": failure},
    });
    if let Some((media, about)) = route.body
        && let Some(operation) = operation.as_object_mut()
    {
        let content = json!({"description": about, "required": true, "content": {media: {"schema": {}}}});
        operation.insert("requestBody".to_owned(), content);
    }
    operation
}

fn parameter(parameter: &Parameter) -> Value {
    let in_path = parameter.place == Place::Path;
    json!({
        "name": parameter.name,
        "in": if in_path { "path" } else { "query" },
        "required": in_path,
        "description": parameter.about,
        "schema": {"type": parameter.kind},
    })
}

fn error_schema() -> Value {
    let text = json!({"type": "string"});
    json!({
        "type": "object",
        "required": ["error"],
        "properties": {"error": {
            "type": "object",
            "required": ["code", "message", "problems"],
            "properties": {
                "code": text,
                "message": text,
                "problems": {"type": "array", "items": {
                    "type": "object",
                    "properties": {"resource": text, "path": text, "reason": text, "proxy": text},
                }},
            },
        }},
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_path_parameter_is_described_and_every_operation_has_its_own_name() {
        let mut names = BTreeSet::new();
        for route in table() {
            let in_path: BTreeSet<&str> = route.path.split(['{', '}']).skip(1).step_by(2).collect();
            let described: BTreeSet<&str> =
                route.parameters.iter().filter(|p| p.place == Place::Path).map(|p| p.name).collect();
            assert_eq!(in_path, described, "{}", route.path);
            assert!(names.insert(route.operation), "{} twice", route.operation);
            assert!(route.public || route.path.starts_with("/api/v1/"));
        }
    }

    #[test]
    fn document_has_exactly_the_routes() {
        let routes = table();
        let document = document(&routes);
        let described: usize =
            document["paths"].as_object().unwrap().values().map(|path| path.as_object().unwrap().len()).sum();
        assert_eq!(described, routes.len());
        for route in &routes {
            assert_eq!(document["paths"][route.path][route.method]["operationId"], route.operation);
        }
    }
}
