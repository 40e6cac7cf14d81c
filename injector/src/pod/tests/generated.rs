//! Pods that nobody wrote down: what holds for all of them.

use proptest::prelude::*;

use super::*;

fn text() -> impl Strategy<Value = Value> {
    "[a-z0-9 ./:-]{0,10}".prop_map(Value::from)
}

/// What nobody here looks at.
fn anything() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        text()
    ];
    leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::vec(("[a-z]{1,6}", inner), 0..4)
                .prop_map(|pairs| Value::Object(pairs.into_iter().collect())),
        ]
    })
}

fn port() -> impl Strategy<Value = Value> {
    prop_oneof![(1..4000_u16).prop_map(Value::from), Just(json!("http")), Just(json!("8080"))]
}

fn probe() -> impl Strategy<Value = Value> {
    let handler = prop_oneof![
        (port(), text())
            .prop_map(|(port, path)| json!({"httpGet": {"port": port, "path": path, "scheme": "HTTPS"}})),
        (port(), text()).prop_map(
            |(port, host)| json!({"initialDelaySeconds": 1, "httpGet": {"port": port, "host": host,
            "httpHeaders": [{"name": "a", "value": "b"}]}, "tcpSocket": null})
        ),
        port().prop_map(|port| json!({"tcpSocket": {"port": port}, "httpGet": null, "periodSeconds": 3})),
        (1..4000_u16).prop_map(|port| json!({"grpc": {"port": port, "service": ""}, "timeoutSeconds": 7})),
        Just(json!({"exec": {"command": ["true"]}})),
        Just(json!(null)),
        anything().prop_map(|future| json!({"future": future})),
    ];
    handler
}

fn container() -> impl Strategy<Value = Value> {
    let probes = ["startupProbe", "readinessProbe", "livenessProbe"];
    (prop::collection::vec((prop::sample::select(probes.to_vec()), probe()), 0..4), anything(), any::<bool>())
        .prop_map(|(probes, extra, always)| {
            let mut container = json!({"ports": [{"name": "http", "containerPort": 8080}], "extra": extra});
            for (key, probe) in probes {
                container[key] = probe;
            }
            if always {
                container["restartPolicy"] = json!("Always");
            }
            container
        })
}

/// A list that may also be missing, or `null`.
fn list(items: impl Strategy<Value = Value>, prefix: &'static str) -> impl Strategy<Value = Option<Value>> {
    let named = move |items: Vec<Value>| {
        let name = |(number, mut item): (usize, Value)| {
            item["name"] = json!(format!("{prefix}{number}"));
            item
        };
        Value::Array(items.into_iter().enumerate().map(name).collect())
    };
    prop_oneof![
        4 => prop::collection::vec(items, 0..4).prop_map(move |items| Some(named(items))),
        1 => Just(None),
        1 => Just(Some(Value::Null)),
    ]
}

fn metadata() -> impl Strategy<Value = Option<Value>> {
    let labels = prop_oneof![
        Just(None),
        Just(Some(json!(null))),
        Just(Some(json!({}))),
        Just(Some(json!({"app": "x"}))),
        Just(Some(json!({INJECT: "enabled"}))),
    ];
    let annotations = prop_oneof![
        Just(None),
        Just(Some(json!(null))),
        Just(Some(json!({"other.io/x": "y"}))),
        Just(Some(json!({"outrider.io/drain-time": "2m", "outrider.io/probes": "keep"}))),
        Just(Some(json!({"outrider.io/protocols": "8080=http", "outrider.io/drain-time": "1s"}))),
    ];
    let object = (labels, annotations, text()).prop_map(|(labels, annotations, name)| {
        let mut metadata = json!({"name": name});
        for (key, value) in [("labels", labels), ("annotations", annotations)] {
            if let Some(value) = value {
                metadata[key] = value;
            }
        }
        Some(metadata)
    });
    prop_oneof![4 => object, 1 => Just(None), 1 => Just(Some(Value::Null)), 1 => Just(Some(json!({})))]
}

fn any_pod() -> impl Strategy<Value = Value> {
    let volume = anything().prop_map(|extra| json!({"extra": extra}));
    let grace = prop_oneof![
        Just(None),
        Just(Some(json!(null))),
        (0..200_u32).prop_map(|seconds| Some(json!(seconds)))
    ];
    let spec =
        (list(container(), "init-"), list(container(), "app-"), list(volume, "volume-"), grace, anything());
    (metadata(), spec).prop_map(|(metadata, (init, containers, volumes, grace, extra))| {
        let mut pod = json!({"spec": {"extra": extra}});
        if let Some(metadata) = metadata {
            pod["metadata"] = metadata;
        }
        for (key, value) in [
            ("initContainers", init),
            ("containers", containers),
            ("volumes", volumes),
            ("terminationGracePeriodSeconds", grace),
        ] {
            if let Some(value) = value {
                pod["spec"][key] = value;
            }
        }
        pod
    })
}

/// A container without what its probes do.
fn without_handlers(container: &Value) -> Value {
    let mut container = container.clone();
    for key in ["startupProbe", "readinessProbe", "livenessProbe"] {
        if let Some(probe) = container.get_mut(key).and_then(Value::as_object_mut) {
            probe.retain(|key, _| !["httpGet", "tcpSocket", "grpc"].contains(&key.as_str()));
        }
    }
    container
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn injection_is_exact_and_can_be_taken_back(pod in any_pod()) {
        let once = injected(&pod);
        prop_assert_eq!(&uninject(&once).unwrap(), &pod);
        prop_assert_eq!(&injected(&once), &once);
        let Ok(Outcome::Injected { pod: kept, .. }) = outcome(&once, Existing::Keep) else { panic!() };
        prop_assert_eq!(&kept, &once);

        let mut patched = pod.clone();
        json_patch::patch(&mut patched, &crate::patch::diff(&pod, &once)).unwrap();
        prop_assert_eq!(&patched, &once);
    }

    #[test]
    fn nothing_of_the_pods_own_changes_but_what_probes_do(pod in any_pod()) {
        let once = injected(&pod);
        prop_assert_eq!(&names(&once, "/spec/initContainers")[..2], [INIT, SIDECAR]);
        for (list, ours) in [("/spec/initContainers", 2), ("/spec/containers", 0)] {
            let before: Vec<Value> = items(&pod, list).iter().map(without_handlers).collect();
            let after: Vec<Value> = items(&once, list)[ours..].iter().map(without_handlers).collect();
            prop_assert_eq!(before, after);
        }
        let volumes = items(&pod, "/spec/volumes");
        prop_assert_eq!(&items(&once, "/spec/volumes")[..volumes.len()], volumes);
        prop_assert_eq!(once.pointer("/spec/extra"), pod.pointer("/spec/extra"));
    }

    /// Whatever comes from whoever may make pods: an answer, and no panic.
    #[test]
    fn any_json_gets_an_answer(mut pod in anything(), spec in anything(), metadata in anything()) {
        if let Some(pod) = pod.as_object_mut() {
            pod.insert("spec".to_owned(), spec);
            pod.insert("metadata".to_owned(), metadata);
        }
        if let Ok(Outcome::Injected { pod: once, .. }) = outcome(&pod, Existing::Keep) {
            prop_assert_eq!(uninject(&once).unwrap(), pod);
        }
    }
}
