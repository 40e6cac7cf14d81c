//! The words for each failure: what it means, its usual causes, what to look at.

use super::Remedy;

const CLUSTERS: &str =
    "the cluster and its endpoints: curl --unix-socket <admin.sock> http://outrider/clusters";
const CONFIG: &str = "the settings in force: curl --unix-socket <admin.sock> http://outrider/config";
const FAR: &str = "the same request at the far sidecar: outrider explain <request id> there";
const STAT: &str = "whether it is one or many, and since when: outrider stat --window 15m";
const LISTENERS: &str = "refusals by reason: curl --unix-socket <admin.sock> http://outrider/listeners";

pub(super) const BAD_REQUEST: Remedy = Remedy {
    means: "The request breaks a rule of HTTP, or could be read in two ways; it was not passed on.",
    causes: &[
        "a client or a library that writes HTTP itself: two Host fields, two lengths, a length and chunks",
        "somebody who tries request smuggling",
    ],
    next: &["the words after the status above: they name the rule", "the client's own code or version"],
};

pub(super) const HEADERS_TOO_LARGE: Remedy = Remedy {
    means: "The request's fields are larger, or more, than limits.header_bytes or limits.header_count allow.",
    causes: &["cookies that grow with each answer", "tokens that hold whole profiles"],
    next: &["the size of the request's cookies and tokens", "if that is meant: raise limits.header_bytes"],
};

pub(super) const UNSUPPORTED: Remedy = Remedy {
    means: "The request asks for a feature of HTTP that is not carried.",
    causes: &["CONNECT or a switch of protocols where neither is allowed", "an extension of HTTP/2"],
    next: &["what is carried: docs/request-path.md, A tunnel and A switch of protocols"],
};

pub(super) const NOT_HTTP: Remedy = Remedy {
    means: "A peer's stream came to a port for HTTP and holds no request; nothing of it went to the app.",
    causes: &[
        "the port says protocol: http, and its app speaks something else",
        "a client that came to the wrong port, or speaks TLS of its own there",
    ],
    next: &["protocol of the port, in inbound or intercept: tcp or detect, if streams are meant", FAR],
};

pub(super) const LATE_REQUEST: Remedy = Remedy {
    means: "A peer's stream became a request after its first bytes had gone to the app as bytes; it was cut off.",
    causes: &[
        "a client that sends the first line of a request piece by piece, over more than 250 ms",
        "somebody who tries to have a request carried that nobody judges",
    ],
    next: &[
        "if the port's app speaks HTTP alone: protocol: http",
        "docs/request-path.md, Opaque streams to the own app",
    ],
};

pub(super) const STREAM_PARAMETERS: Remedy = Remedy {
    means: "A peer's sidecar opened a stream in a way that this sidecar does not know; it was not carried.",
    causes: &["a peer of another version, which knows more kinds of streams", "a peer that is no Outrider"],
    next: &["the version of the peer's sidecar: outrider --version there", FAR],
};

pub(super) const NO_ROUTE: Remedy = Remedy {
    means: "No cluster has the authority that was asked for, so nobody knows where the request belongs.",
    causes: &[
        "a typing error in the host, or a port that the cluster's authorities do not name",
        "the cluster is missing from the configuration, or a reload was rejected",
    ],
    next: &[
        "who is known by that host: outrider route explain --running METHOD URL",
        CONFIG,
        "whether the newest file is in force: outrider reload",
        "clusters[].authorities in the file",
    ],
};

pub(super) const NO_RULE: Remedy = Remedy {
    means: "The host, or the service, that was asked for has rules under routes, and the request is of none of them.",
    causes: &[
        "a path, a method or a field that no rule names, where no rule matches everything",
        "a path that some rule names in another spelling: letters' case counts, and so does a / at its end",
        "a route for the host was added, and takes the requests that used to go to the cluster of that name",
    ],
    next: &[
        "which rules were looked at, and what did not fit: outrider route explain --running METHOD URL (or --config FILE: by a file)",
        "routes[].rules[].matches in the file; in Kubernetes the HTTPRoutes and GRPCRoutes of the service, and their status",
        CONFIG,
    ],
};

pub(super) const NOT_DISCOVERED: Remedy = Remedy {
    means: "Nobody here knows where that address or name leads, and the controller did not say so within controller.wait. Nothing was sent anywhere.",
    causes: &[
        "the controller is away, or cannot be reached from here, and this was not used before",
        "the file, or another service, has a name or an address of the service, so that what the controller says is left out",
        "what the controller says of the service is faulty, or no pod of it may be called at that address",
    ],
    next: &[
        "how it goes with the controller: controller in GET /config on the admin socket, outrider_controller_connected",
        "which services were left out, and why: controller.rejected in the same place, and the log",
        "the controller's log, for this sidecar's pod",
    ],
};

pub(super) const NOT_ALLOWED: Remedy = Remedy {
    means: "The caller is not one of those who may call here, or proved nothing where mutual TLS is asked for.",
    causes: &[
        "the caller's SPIFFE ID is not in the listener's allow list (any more)",
        "a request in plaintext that no exception permits",
    ],
    next: &["the allow list of the listener named above, against the caller named above", CONFIG, LISTENERS],
};

pub(super) const NO_LONGER_ALLOWED: Remedy = Remedy {
    means: "It was allowed when it began. The rules changed while it was under way, and it was ended.",
    causes: &[
        "a reload took the caller off the listener's allow list, or an authorization rule away that allowed this",
        "the day of plaintext_until began, or an exception was taken away",
        "a new rule looks at a field that was not kept of requests from before: the caller may ask again",
    ],
    next: &["what changed last in the file: allow, authorization, plaintext, plaintext_from, probes", CONFIG],
};

pub(super) const NOT_AUTHORIZED: Remedy = Remedy {
    means: "The caller has proved who it is, and no rule allows it what it asks for: of the file, or of the controller, which must both.",
    causes: &[
        "a call that no rule was written for yet: a new path, method, host or caller",
        "a policy of the cluster that selects this pod and does not allow it, or cannot be used: see its status",
        "a pod of which the controller has said nothing yet, or whose word is not understood here",
        "a rule with hosts, methods, paths, headers or grpc, and an opaque stream: those fit requests only",
        "a field that a rule looks at is sent twice, or not in ASCII",
    ],
    next: &[
        "which rule comes closest: outrider policy explain --running --from <caller> --port <port> --path <path> at the callee (or --config FILE: by a file)",
        "what the controller says: bootstrap.controller_authorization and controller.rejected of GET /config",
        CONFIG,
        "to see what rules would deny before they do: authorization.mode: audit",
    ],
};

pub(super) const NO_ENDPOINT: Remedy = Remedy {
    means: "The cluster has no endpoint that may be asked; the request waited for one as long as queue_timeout.",
    causes: &[
        "the service has no replica: none is listed, or none is ready",
        "discovery has failed, or names the wrong file or DNS name",
        "health checks found all unhealthy, or all were ejected with panic_percent: 0",
    ],
    next: &[
        CLUSTERS,
        "its discovery (age and error) and each endpoint's standing there",
        "whether the service runs at all",
    ],
};

pub(super) const MAX_REQUESTS: Remedy = Remedy {
    means: "As many requests of the cluster are in flight as max_requests allows; this one was one too many.",
    causes: &["the endpoints have become slow, so that requests pile up", "a burst, or a cap set too low"],
    next: &["latencies and what is in flight: outrider top", "if the endpoints are well: raise max_requests"],
};

pub(super) const MAX_REQUESTS_OF_PEER: Remedy = Remedy {
    means: "This caller has as many requests in flight at the listener as one may have: max_peer_percent of max_requests.",
    causes: &[
        "the caller holds requests open: slow uploads, streams that never end, or an attack",
        "one service makes most of the calls, and the cap is set too low for it",
    ],
    next: &["who calls, and how much: outrider top", "raise max_requests, or max_peer_percent up to 100"],
};

pub(super) const MAX_CONNECTIONS: Remedy = Remedy {
    means: "As many connections of the cluster are open as max_connections allows, and none was free.",
    causes: &[
        "slow endpoints behind HTTP/1, where each request takes a connection",
        "more endpoints than max_connections was meant for",
    ],
    next: &["what is open: outrider top", "raise max_connections, or speak HTTP/2 with the endpoints"],
};

pub(super) const MAX_PENDING: Remedy = Remedy {
    means: "As many requests wait for a connection, or for an endpoint, as max_pending allows.",
    causes: &["no endpoint may be asked, and requests wait for one", "connections take long to be made"],
    next: &[CLUSTERS, "outrider explain UH: what the others waited for"],
};

pub(super) const OVERFLOW: Remedy = Remedy {
    means: "A cap of the cluster was reached: max_requests, max_connections or max_pending.",
    causes: &["the endpoints have become slow, so that requests pile up", "a burst, or a cap set too low"],
    next: &["what is at its cap: outrider stat shows it as open", CLUSTERS],
};

pub(super) const OVERLOAD: Remedy = Remedy {
    means: "The sidecar's process is over its memory budget, and lets only a few requests of each cluster go on.",
    causes: &["very many connections or streams at once", "a memory limit that is too low for this load"],
    next: &["outrider_memory metrics, and limits.memory", STAT],
};

pub(super) const RATE_LIMITED: Remedy = Remedy {
    means: "A rate limit of the listener, the cluster or the route is reached; repeating it would not help.",
    causes: &["a caller that sends more than agreed", "a limit that is lower than what is needed"],
    next: &[
        "what is left, by caller: rate_limits in curl --unix-socket <admin.sock> http://outrider/clusters",
    ],
};

pub(super) const FAULT_INJECTED: Remedy = Remedy {
    means: "The configuration orders this answer: a fault that is injected on purpose.",
    causes: &["an experiment that somebody runs, or forgot to end"],
    next: &["fault of the cluster or its route in the configuration", CONFIG],
};

pub(super) const DELAYED: Remedy = Remedy {
    means: "The request was delayed on purpose by a fault that is injected; nothing else was odd.",
    causes: &["an experiment that somebody runs, or forgot to end"],
    next: &["fault.delay of the cluster or its route in the configuration", CONFIG],
};

pub(super) const CONNECT_FAILED: Remedy = Remedy {
    means: "No connection to an endpoint could be had; it has not seen the request.",
    causes: &[
        "nobody listens there: the replica (inbound: the own app) is down or starting",
        "a firewall or network policy between the hosts; then it is a timeout and not a refusal",
        "the far sidecar refused us in the handshake: its allow list, its trust bundle, an expired certificate",
    ],
    next: &[
        "the words of each failed attempt above",
        CLUSTERS,
        "at the far sidecar: refused, by reason, in http://outrider/listeners",
    ],
};

pub(super) const IDENTITY_MISMATCH: Remedy = Remedy {
    means: "Who answers at the endpoint's address is not who it must be; it was told nothing of the request.",
    causes: &[
        "an address that another workload got meanwhile: discovery lags behind",
        "spiffe_ids of the cluster name the wrong workload",
        "somebody who poses as the service",
    ],
    next: &["who was found and who was expected: the attempts above", "spiffe_ids of the cluster", CLUSTERS],
};

pub(super) const NOT_PROCESSED: Remedy = Remedy {
    means: "The endpoint closed or refused the stream before it took the request; no other could be asked instead.",
    causes: &["replicas that stop one after the other", "an endpoint that is at its caps, or drains"],
    next: &[FAR, "whether a rollout is under way", CLUSTERS],
};

pub(super) const RESET: Remedy = Remedy {
    means: "The endpoint broke off before an answer. It may have seen the request, so not every method is repeated.",
    causes: &[
        "the app or its sidecar crashed, or was killed, under the request",
        "the app closes idle connections sooner than the sidecar believes (pool_idle_timeout)",
    ],
    next: &[FAR, "restarts and logs of the far app", "pool_idle_timeout: shorter than the app's own"],
};

pub(super) const BROKE_OFF: Remedy = Remedy {
    means: "The upstream broke off before its answer was complete, or did not take the request.",
    causes: &["the app or its sidecar crashed, or was killed", "the app gave up while it wrote its answer"],
    next: &[FAR, "restarts and logs of the far app", CLUSTERS],
};

pub(super) const PROTOCOL_ERROR: Remedy = Remedy {
    means: "What the endpoint answered is not HTTP, or not as HTTP must be.",
    causes: &[
        "app_protocol (or plain_protocol) says another version than the app speaks",
        "the port is not one of HTTP: protocol: tcp is missing",
        "an app that expects TLS and gets plaintext",
    ],
    next: &["app_protocol and app of the far listener", FAR],
};

pub(super) const BAD_RESPONSE: Remedy = Remedy {
    means: "The endpoint's answer breaks a rule of HTTP that readers take differently; it was not passed on.",
    causes: &["an app that writes HTTP itself: two lengths, a length and chunks"],
    next: &["the words after the status above: they name the rule", "the far app's code or version"],
};

pub(super) const RESPONSE_HEADERS: Remedy = Remedy {
    means: "The answer's fields are larger, or more, than limits.header_bytes or limits.header_count allow.",
    causes: &["an app that sets ever more cookies"],
    next: &["the fields that the app sends", "if that is meant: raise limits.header_bytes"],
};

pub(super) const PER_TRY_TIMEOUT: Remedy = Remedy {
    means: "No attempt had an answer within retry.per_try_timeout, and no more could be made.",
    causes: &["endpoints that are slow or hang", "a per_try_timeout below what the app needs"],
    next: &["p99 of this edge: outrider stat", FAR],
};

pub(super) const REQUEST_TIMEOUT: Remedy = Remedy {
    means: "No answer in time: the request's timeout (or that of its last attempt) ran out.",
    causes: &["an app that is slow, or waits for another one", "a timeout below what the app needs"],
    next: &["where the time went: the attempts above", FAR, "p99 of this edge: outrider stat"],
};

pub(super) const DEADLINE: Remedy = Remedy {
    means: "The time that the caller gave ran out: its grpc-timeout, or what it had left itself.",
    causes: &[
        "a caller far above with a short deadline, of which hops before this one used most",
        "an app that is slow",
    ],
    next: &["how much time was left when it came: the words after the status above", FAR],
};

pub(super) const STREAM_IDLE: Remedy = Remedy {
    means: "Nothing moved in either direction for stream_idle_timeout (a half stream: half_open_timeout).",
    causes: &["an app that hangs", "a stream that is quiet by nature: watches, server-sent events"],
    next: &["for quiet streams: raise stream_idle_timeout, or have the app send keep-alives", FAR],
};

pub(super) const DOWNSTREAM_GONE: Remedy = Remedy {
    means: "The caller went away before its answer was complete: nobody was left to be answered.",
    causes: &[
        "the caller's own timeout is shorter than the app needs",
        "a user who left, a caller that restarted",
    ],
    next: &["how long it waited (above), against the caller's timeout", "p99 of this edge: outrider stat"],
};

pub(super) const DRAINING: Remedy = Remedy {
    means: "This sidecar is stopping, and takes nothing new.",
    causes: &["a rollout, or an operator's drain", "callers that still list this replica"],
    next: &["outrider drain, or the phase in curl --unix-socket <admin.sock> http://outrider/status"],
};

pub(super) const APP_FAILED: Remedy = Remedy {
    means: "The answer is the app's own (or of something behind it): the sidecar passed it on.",
    causes: &["a fault of the app, or of what it depends on"],
    next: &["the app's logs, by the request's ID", FAR, STAT],
};

pub(super) const REPEATED: Remedy = Remedy {
    means: "It was tried more than once, and the last answer was good: the caller noticed nothing but the time.",
    causes: &["a replica that stops or starts", "an endpoint that fails now and then"],
    next: &["how often that happens: retries in outrider stat --window 15m", CLUSTERS],
};
