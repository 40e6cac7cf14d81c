# What PostgreSQL's own client does, with the server at host $1, port $2.
export PGHOST=$1 PGPORT=$2 PGUSER=app PGDATABASE=postgres PGCONNECT_TIMEOUT=20 PGSSLMODE=disable
sql() { psql -XAtq "$@"; }
sessions() { [ "$(sql -c "select count(*) from pg_stat_activity where query = '$1'")" = "$2" ]; }

# TLS that begins in the middle of a connection is its own.
[ "$(PGSSLMODE=require sql -c 'select ssl from pg_stat_ssl where pid = pg_backend_pid()')" = t ]

# Some MB each way.
sql -c 'drop table if exists t; create table t (n int, text text)' 2>/dev/null
sql -c 'copy (select n, repeat(md5(n::text), 4) from generate_series(1, 20000) n) to stdout' >out
sql -c 'copy t from stdin' <out
[ "$(sql -c 'select count(*), sum(length(text)) from t')" = '20000|2560000' ]
sql -c 'copy t to stdout' | cmp - out

# A notification, after a silence.
rm -f fifo heard && mkfifo fifo && : >heard
psql -XAtq <fifo >heard &
exec 3>fifo
echo "listen news; select 'listening';" >&3
await grep -q listening heard
sleep 1
sql -c "notify news, 'words'"
echo "select 'more';" >&3
await grep -q 'notification "news" with payload "words"' heard

# A client that dies without a word takes its session with it.
echo "select 'victim';" >&3
await sessions "select ''victim'';" 1
kill -KILL $!
await sessions "select ''victim'';" 0
exec 3>&-

# A query is cancelled by a second connection.
psql -XAtq -c 'select pg_sleep(60)' 2>errors &
await sessions 'select pg_sleep(60)' 1
kill -INT $!
if wait $!; then exit 1; fi
grep -q 'canceling statement due to user request' errors
