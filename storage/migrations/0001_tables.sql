-- The first schema of ringwheel.
--
-- Times are bigint: integer milliseconds since 1970 on this server's clock (accept_us: microseconds). The views at the
-- end show them as timestamptz for people. There are no sequences, foreign keys or triggers: nothing that a
-- Postgres-compatible distributed engine would lack. docs/decisions/ holds the measurements behind the choices.

-- One row. `schema_version` is the last applied migration, `needs_program` the oldest program (by the number of the
-- last migration that it knows) that still works with this schema.
CREATE TABLE cluster (
    one              boolean PRIMARY KEY DEFAULT true CHECK (one),
    shards           int4    NOT NULL,
    schema_version   int4    NOT NULL,
    needs_program    int4    NOT NULL,
    settings_version int8    NOT NULL DEFAULT 0
) WITH (fillfactor = 10);

-- Who migrates says how many shards there are (migrations.py).
INSERT INTO cluster (shards, schema_version, needs_program) VALUES (current_setting('ringwheel.shards')::int4, 1, 1);

-- A row for every process start. `hb_seq` is its heartbeat counter; only its changes mean anything.
-- A low fill factor keeps the updates heap-only (HOT).
CREATE TABLE nodes (
    boot      text PRIMARY KEY CHECK (length(boot) BETWEEN 1 AND 50),
    name      text NOT NULL,
    address   text NOT NULL,
    state     text NOT NULL CHECK (state IN ('up', 'dead')),
    hb_seq    int8 NOT NULL DEFAULT 0,
    joined_ms int8 NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_scale_factor = 0);

-- Who owns a shard, and under which epoch. The fence of every ledger write locks rows here (docs/ownership.md).
CREATE TABLE shards (
    shard      int2 PRIMARY KEY,
    owner_boot text,
    epoch      int8 NOT NULL DEFAULT 0
) WITH (fillfactor = 10, autovacuum_vacuum_threshold = 5000, autovacuum_vacuum_scale_factor = 0);

INSERT INTO shards (shard) SELECT n FROM cluster, generate_series(0, cluster.shards - 1) AS n;

-- Numbers are the highest one + 1, tried again on conflict. `retry` NULL = the program's default policy.
CREATE TABLE queues (
    queue_id             int4 PRIMARY KEY,
    tenant               text    NOT NULL,
    name                 text    NOT NULL,
    paused               boolean NOT NULL DEFAULT false,
    retry                json,
    dispatch_deadline_ms int8    NOT NULL DEFAULT 30000,
    version              int8    NOT NULL DEFAULT 0,
    UNIQUE (tenant, name)
);

-- Live tasks only. Immutable: id, shard, queue, accept_us, spec, labels, key_hash, payload.
-- `spec` is the interned, versioned JSON of the request (actors/core/codec.py) in UTF-8; `payload` is what the client
-- sent, as bytes. Wide columns first: no padding.
CREATE TABLE tasks (
    schedule_ms      int8  NOT NULL,
    due_ms           int8  NOT NULL,
    accept_us        int8  NOT NULL,
    epoch            int8  NOT NULL DEFAULT 0,
    queue_id         int4  NOT NULL,
    rev              int4  NOT NULL DEFAULT 0,
    attempt          int4  NOT NULL DEFAULT 0,
    budget           int4  NOT NULL,
    shard            int2  NOT NULL,
    id               uuid  NOT NULL,
    tenant           text  NOT NULL,
    spec             bytea NOT NULL,
    labels           jsonb,
    key_hash         bytea,
    payload          bytea,
    lateness_ms      int8,
    claim_ms         int8,
    last_started_ms  int8,
    last_duration_ms int8,
    last_status      int4,
    last_error       text,
    PRIMARY KEY (shard, id)
) WITH (
    fillfactor = 90,
    autovacuum_vacuum_threshold = 20000,
    autovacuum_vacuum_scale_factor = 0.02,
    autovacuum_vacuum_cost_delay = 1,
    autovacuum_analyze_threshold = 50000,
    autovacuum_analyze_scale_factor = 0.2
);

-- Serves the wheel's pages, the probe and the list of a queue: key-set pages in (due_ms, id) order within one queue of
-- one shard. A backlog of one queue is not in the way of another's.
CREATE INDEX tasks_due ON tasks (shard, queue_id, due_ms, id);

-- Tasks that are over. `last_day` (days since 1970) is the last day on which the row has to be kept, fixed when it was
-- finished: housekeeping makes one partition a day and drops it whole. `state`: 2 succeeded, 3 dead, 4 expired,
-- 5 cancelled.
-- `payload` is kept for all but succeeded ones, `result` for succeeded ones alone.
CREATE TABLE finished (
    schedule_ms      int8  NOT NULL,
    due_ms           int8  NOT NULL,
    accept_us        int8  NOT NULL,
    epoch            int8  NOT NULL,
    finish_ms        int8  NOT NULL,
    last_day         int4  NOT NULL,
    queue_id         int4  NOT NULL,
    rev              int4  NOT NULL,
    attempt          int4  NOT NULL,
    budget           int4  NOT NULL,
    shard            int2  NOT NULL,
    state            int2  NOT NULL,
    id               uuid  NOT NULL,
    tenant           text  NOT NULL,
    spec             bytea NOT NULL,
    labels           jsonb,
    key_hash         bytea,
    payload          bytea,
    lateness_ms      int8,
    last_started_ms  int8,
    last_duration_ms int8,
    last_status      int4,
    last_error       text,
    result           bytea
) PARTITION BY RANGE (last_day);

CREATE INDEX finished_id ON finished (id);

-- The list of what went wrong: dead letters and the like are few, so this costs a success nothing.
CREATE INDEX finished_failed ON finished (queue_id, due_ms, id) WHERE state <> 2;

-- Attempts that failed or were slow. `fence` is `<timeline>.<epoch>.<attempt>`.
CREATE TABLE attempts (
    started_ms  int8 NOT NULL,
    duration_ms int8 NOT NULL,
    last_day    int4 NOT NULL,
    attempt     int4 NOT NULL,
    status      int4,
    id          uuid NOT NULL,
    tenant      text NOT NULL,
    fence       text NOT NULL,
    verdict     text NOT NULL,
    error       text
) PARTITION BY RANGE (last_day);

CREATE INDEX attempts_id ON attempts (id);

-- For people. Programs read the tables.
CREATE VIEW tasks_view AS
SELECT t.id, t.tenant, q.name AS queue, t.shard,
       to_timestamp(t.schedule_ms / 1000.0) AS schedule_time, to_timestamp(t.due_ms / 1000.0) AS due,
       to_timestamp(t.accept_us / 1000000.0) AS create_time, t.attempt, t.budget, t.rev, t.epoch, t.lateness_ms,
       to_timestamp(t.claim_ms / 1000.0) AS claimed_until,
       to_timestamp(t.last_started_ms / 1000.0) AS last_started, t.last_duration_ms, t.last_status, t.last_error,
       t.labels, convert_from(t.spec, 'UTF8')::json AS spec, octet_length(t.payload) AS payload_bytes
  FROM tasks t LEFT JOIN queues q USING (queue_id);

CREATE VIEW finished_view AS
SELECT f.id, f.tenant, q.name AS queue, f.shard,
       (ARRAY['scheduled', 'running', 'succeeded', 'dead', 'expired', 'cancelled'])[f.state + 1] AS state,
       to_timestamp(f.schedule_ms / 1000.0) AS schedule_time, to_timestamp(f.accept_us / 1000000.0) AS create_time,
       to_timestamp(f.finish_ms / 1000.0) AS finish_time, date '1970-01-01' + f.last_day AS kept_until,
       f.attempt, f.budget, f.rev, f.epoch, f.lateness_ms,
       to_timestamp(f.last_started_ms / 1000.0) AS last_started, f.last_duration_ms, f.last_status, f.last_error,
       f.labels, convert_from(f.spec, 'UTF8')::json AS spec, octet_length(f.payload) AS payload_bytes,
       octet_length(f.result) AS result_bytes
  FROM finished f LEFT JOIN queues q USING (queue_id);

CREATE VIEW attempts_view AS
SELECT a.id, a.tenant, a.attempt, a.fence, to_timestamp(a.started_ms / 1000.0) AS started, a.duration_ms, a.verdict,
       a.status, a.error, date '1970-01-01' + a.last_day AS kept_until
  FROM attempts a;
