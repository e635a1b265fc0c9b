-- Accepting and loading. Column lists fit storage/rows.py. Single rows are looked up as sql/ledger.sql says.

-- name: insert_keyed
-- $1.. one array a column, in primary key order (no deadlock between two batches). ON CONFLICT waits for another
-- transaction that is inserting or deleting the same id, then decides.
INSERT INTO tasks (schedule_ms, due_ms, accept_us, queue_id, budget, shard, id, tenant, spec, labels, key_hash, payload,
                   trace)
SELECT * FROM unnest($1::int8[], $2::int8[], $3::int8[], $4::int4[], $5::int4[], $6::int2[], $7::uuid[], $8::text[],
                     $9::bytea[], $10::jsonb[], $11::bytea[], $12::bytea[], $13::text[])
ON CONFLICT DO NOTHING
RETURNING id::text;

-- name: settle_keyed
-- The second statement of a keyed accept, so with a snapshot of its own: a task that was finished while the insert
-- waited is visible now. $1 shards, $2 ids of the whole batch, $3 which of them were just inserted.
-- Takes back those that stand in `finished`, and answers what stands under every id that was not new.
WITH asked AS MATERIALIZED (
    SELECT * FROM unnest($1::int2[], $2::uuid[], $3::boolean[]) AS a (shard, id, inserted)
), over AS MATERIALIZED (
    SELECT a.shard, a.id, f.key_hash, f.state, a.inserted
      FROM asked a
     CROSS JOIN LATERAL (SELECT f.key_hash, f.state FROM finished f WHERE f.id = a.id OFFSET 0) AS f
), taken_back AS (
    DELETE FROM tasks t
     USING (SELECT r.at
              FROM over o
             CROSS JOIN LATERAL (SELECT r.ctid AS at FROM tasks r
                                  WHERE r.shard = o.shard AND r.id BETWEEN o.id AND o.id ORDER BY r.id LIMIT 1) AS r
             WHERE o.inserted
             LIMIT (SELECT count(*) FROM over)) AS o
     WHERE t.ctid = o.at
)
SELECT o.id::text, o.key_hash, o.state FROM over o
UNION ALL
SELECT a.id::text, t.key_hash, 0::int2
  FROM asked a
 CROSS JOIN LATERAL (SELECT t.key_hash FROM tasks t
                      WHERE t.shard = a.shard AND t.id BETWEEN a.id AND a.id ORDER BY t.id LIMIT 1) AS t
 WHERE NOT a.inserted;

-- name: load
-- One key-set page for each element of the arrays: $1 shard, $2 queue or NULL, $3 and $4 the key to start after,
-- $5 until, $6 limit for each queue, $7 limit for the page, $8 earlier ends for some queues (JSON, queue -> due_ms).
-- Answers the page's number (from 1), whether the row's queue has more than is shown, and the row, in (due, id) order.
-- A page without a queue visits each queue of its shard, and shows at least the first row of each.
-- Which queues those are: while there are few, all of them (a probe each, and dead index entries of finished tasks are
-- never in the way); else those that have rows, by jumping from one to the next lower along the index's end, where
-- rows of the future live.
WITH RECURSIVE few AS MATERIALIZED (
    SELECT count(*) <= 32 AS yes FROM (SELECT FROM queues LIMIT 33) AS q
), page AS MATERIALIZED (
    SELECT * FROM unnest($1::int2[], $2::int4[], $3::int8[], $4::uuid[], $5::int8[], $6::int4[], $7::int4[],
                         $8::jsonb[])
             WITH ORDINALITY AS p (shard, queue_id, after_ms, after_id, until_ms, most, total, caps, n)
), present (shard, queue_id) AS (
    SELECT DISTINCT p.shard, 2147483647 FROM page p WHERE p.queue_id IS NULL AND NOT (SELECT yes FROM few)
    UNION ALL
    SELECT h.shard, (SELECT t.queue_id FROM tasks t WHERE t.shard = h.shard AND t.queue_id < h.queue_id
                      ORDER BY t.queue_id DESC, t.due_ms DESC, t.id DESC LIMIT 1)
      FROM present h WHERE h.queue_id IS NOT NULL
), wanted AS (
    SELECT p.*, p.queue_id AS queue FROM page p WHERE p.queue_id IS NOT NULL
    UNION ALL
    SELECT p.*, q.queue_id FROM page p CROSS JOIN queues q WHERE p.queue_id IS NULL AND (SELECT yes FROM few)
    UNION ALL
    SELECT p.*, h.queue_id FROM page p JOIN present h ON h.shard = p.shard
     WHERE p.queue_id IS NULL AND h.queue_id < 2147483647
), found AS (
    SELECT w.n::int4 AS n, w.most, w.total, t.*,
           row_number() OVER (PARTITION BY w.n ORDER BY t.due_ms, t.id) AS place,
           row_number() OVER (PARTITION BY w.n, t.queue_id ORDER BY t.due_ms, t.id) AS turn
      FROM wanted w
     CROSS JOIN LATERAL (
           SELECT t.id, t.shard, t.queue_id, t.schedule_ms, t.due_ms, t.accept_us, t.spec,
                  coalesce(octet_length(t.payload), 0) AS payload_bytes, t.labels, t.key_hash, t.budget, t.rev,
                  t.attempt, t.lateness_ms, t.claim_ms, t.epoch, t.trace, t.claim_boot, t.last_status, t.last_error
             FROM tasks t
            WHERE t.shard = w.shard AND t.queue_id = w.queue
              AND (t.due_ms, t.id) > (w.after_ms, w.after_id)
              AND t.due_ms <= least(w.until_ms, (w.caps ->> w.queue::text)::int8)
            ORDER BY t.due_ms, t.id
            LIMIT w.most) AS t
), counted AS (
    SELECT f.*, max(f.place) OVER q AS last_place, max(f.turn) OVER q AS turns
      FROM found f WINDOW q AS (PARTITION BY f.n, f.queue_id)
)
SELECT c.n, c.turns >= c.most OR (c.last_place > c.total AND c.turns > 1) AS more,
       c.id, c.shard, c.queue_id, c.schedule_ms, c.due_ms, c.accept_us, c.spec, c.payload_bytes, c.labels, c.key_hash,
       c.budget, c.rev, c.attempt, c.lateness_ms, c.claim_ms, c.epoch, c.trace, c.claim_boot,
       c.last_status, c.last_error
  FROM counted c
 WHERE c.place <= c.total OR c.turn = 1
 ORDER BY c.n, c.due_ms, c.id;

-- name: payloads
-- $1 shards, $2 ids; answers places in the arrays (from 1) and payloads.
SELECT a.n::int4, t.payload
  FROM unnest($1::int2[], $2::uuid[]) WITH ORDINALITY AS a (shard, id, n)
 CROSS JOIN LATERAL (SELECT t.payload FROM tasks t
                      WHERE t.shard = a.shard AND t.id BETWEEN a.id AND a.id ORDER BY t.id LIMIT 1) AS t
 WHERE t.payload IS NOT NULL;

-- name: find
-- $1 shards, $2 ids, $3 tenant or NULL. One statement, one snapshot: a task that moves between the tables is seen once.
SELECT t.id, t.shard, t.queue_id, t.schedule_ms, t.due_ms, t.accept_us, t.spec,
       coalesce(octet_length(t.payload), 0) AS payload_bytes, t.labels, t.key_hash, t.budget, t.rev, t.attempt,
       t.lateness_ms, t.claim_ms, t.epoch, t.trace, t.claim_boot, t.last_status, t.last_error,
       0::int2 AS state, NULL::bytea AS payload
  FROM unnest($1::int2[], $2::uuid[]) AS a (shard, id)
 CROSS JOIN LATERAL (SELECT * FROM tasks t
                      WHERE t.shard = a.shard AND t.id BETWEEN a.id AND a.id ORDER BY t.id LIMIT 1) AS t
 WHERE $3::text IS NULL OR t.tenant = $3
UNION ALL
SELECT f.id, f.shard, f.queue_id, f.schedule_ms, f.due_ms, f.accept_us, f.spec,
       coalesce(octet_length(f.payload), 0), f.labels, f.key_hash, f.budget, f.rev, f.attempt,
       f.lateness_ms, NULL, f.epoch, f.trace, NULL, f.last_status, f.last_error, f.state, f.payload
  FROM unnest($2::uuid[]) AS a (id)
 CROSS JOIN LATERAL (SELECT * FROM finished f WHERE f.id = a.id OFFSET 0) AS f
 WHERE $3::text IS NULL OR f.tenant = $3;
