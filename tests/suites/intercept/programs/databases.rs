//! Databases and caches with their own clients: most speak when they are spoken to, MariaDB speaks first.

use super::{Scene, services};

#[test]
fn redis_answers_one_by_one_and_in_a_pipeline_and_publishes_after_a_silence() {
    let Some(scene) = Scene::set(&["redis-server", "redis-cli"]) else { return };
    let port = scene.port().to_string();
    let options = "--bind * -::* --save  --protected-mode no --dir /run/app --port";
    let _server = scene.server(
        port.parse().unwrap(),
        ["redis-server"].into_iter().chain(options.split(' ')).chain([&*port]),
    );
    let script = r#"
        redis() { redis-cli -h "$host" -p "$port" "$@"; }
        host=$1 port=$2
        [ "$(redis SET key value)" = OK ]
        [ "$(redis GET key)" = value ]
        seq 1 20000 | sed 's/.*/SET key:& value:&/' | redis --pipe | grep -q 'errors: 0, replies: 20000'
        [ "$(redis GET key:20000)" = value:20000 ]
        redis-cli -h "$host" -p "$port" SUBSCRIBE news >heard &
        await grep -q '^subscribe$' heard
        sleep 1 # Nobody says anything.
        redis PUBLISH news words >/dev/null
        await grep -q '^words$' heard
    "#;
    // What it is told and tells is on no wire.
    let capture = scene.pods().capture("value:");
    scene.found_to_be(&["opaque client"], || {
        for host in services() {
            scene.shell(script, &[&host, &port]);
        }
    });
    let seen: Vec<_> = capture.end().into_iter().filter(|passed| passed.is_of(0)).collect();
    // Connections between sidecars may be older.
    assert!(seen.iter().any(|passed| passed.kind != "plain"), "{seen:?}");
    assert!(seen.iter().all(|passed| passed.kind != "plain" && passed.found == 0), "{seen:?}");
}

#[test]
fn postgresql_takes_queries_and_copies_notifies_cancels_and_sees_its_client_die() {
    let Some(scene) = Scene::set(&["postgres", "psql", "openssl"]) else { return };
    let port = scene.port();
    let folder = "PATH=$PATH:$(echo /usr/lib/postgresql/*/bin | tr ' ' ':')";
    let init = format!(
        "{folder}; initdb -D pg -A trust -U app --no-sync --no-locale -E UTF8 >initdb.log; \
         echo 'host all all all trust' >>pg/pg_hba.conf; \
         openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout pg/server.key \
             -out pg/server.crt -subj /CN=data -days 2 2>>initdb.log"
    );
    scene.pods().text(super::DATA, ["sh", "-euc", &init]);
    let options = "-D pg -c listen_addresses=* -c unix_socket_directories= -c fsync=off -c shared_buffers=8MB -c ssl=on";
    let start = format!("{folder}; exec postgres {options} -p {port}");
    let _server = scene.server(port, ["sh", "-euc", &start]);
    scene.found_to_be(&["opaque client"], || {
        for host in services() {
            scene.shell(include_str!("postgresql.sh"), &[&host, &port.to_string()]);
        }
    });
}

#[test]
fn memcached_sets_and_gets() {
    let Some(scene) = Scene::set(&["memcached", "nc"]) else { return };
    let port = scene.port();
    let _server = scene.server(port, ["memcached", "-p", &port.to_string(), "-U", "0"]);
    let ask = r"printf 'set key 0 0 5\r\nvalue\r\nget key\r\nquit\r\n' | nc -w 20 $1 $2";
    scene.found_to_be(&["opaque client"], || {
        for host in services() {
            let said = scene.shell(ask, &[&host, &port.to_string()]);
            assert_eq!(said, "STORED\r\nVALUE key 0 5\r\nvalue\r\nEND\r\n", "{host}");
        }
    });
}

#[test]
fn mariadb_greets_its_client_and_answers_it() {
    let Some(scene) = Scene::set(&["mariadbd", "mariadb"]) else { return };
    let port = scene.port();
    // Without tables of its own: they would take their time.
    let options = "--no-defaults --datadir=/run/app/my --skip-grant-tables --innodb=OFF --default-storage-engine=MEMORY \
                   --aria-log-dir-path=/run/app/my --socket=/run/app/my.sock --bind-address=* --skip-networking=0";
    let start = format!("mkdir my; exec mariadbd {options} --port={port}");
    let _server = scene.server(port, ["sh", "-euc", &start]);
    scene.found_to_be(&["opaque server"], || {
        for host in services() {
            let query = ["mariadb", "--no-defaults", "-N", "-h", &host, "-P", &port.to_string(), "-e"];
            assert_eq!(scene.text(&[&query[..], &["select 40 + 2"]].concat()), "42\n", "{host}");
            let long = scene.text(&[&query[..], &["select repeat('x', 1000000)"]].concat());
            assert_eq!(long.len(), 1_000_001, "{host}");
        }
    });
}
