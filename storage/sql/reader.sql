-- Reads for people and programs, always bound to a tenant.

-- name: get
-- $1 shard, $2 id, $3 tenant, $4 whether to bring the payload. One statement, one snapshot over both tables.
SELECT t.id, t.shard, t.queue_id, 0::int2 AS state, t.schedule_ms, t.due_ms, t.accept_us, t.rev, t.attempt, t.budget,
       t.epoch, t.spec, t.labels, CASE WHEN $4 THEN t.payload END AS payload, t.claim_ms, t.lateness_ms,
       NULL::int8 AS finish_ms, NULL::bytea AS result, t.last_started_ms, t.last_duration_ms, t.last_status,
       t.last_error
  FROM tasks t
 WHERE t.shard = $1 AND t.id = $2 AND t.tenant = $3
UNION ALL
SELECT f.id, f.shard, f.queue_id, f.state, f.schedule_ms, f.due_ms, f.accept_us, f.rev, f.attempt, f.budget,
       f.epoch, f.spec, f.labels, CASE WHEN $4 THEN f.payload END, NULL, f.lateness_ms,
       f.finish_ms, f.result, f.last_started_ms, f.last_duration_ms, f.last_status, f.last_error
  FROM finished f
 WHERE f.id = $2 AND f.tenant = $3;

-- name: attempts
-- $1 id, $2 tenant, $3 limit.
SELECT attempt, fence, started_ms, duration_ms, verdict, status, error
  FROM attempts
 WHERE id = $1 AND tenant = $2
 ORDER BY fence, started_ms
 LIMIT $3;

-- name: page
-- (storage/reader.py makes one that walks backwards of each page: keep to its way of writing keys and orders.)
-- $1 numbers of the tenant's queues, $2 whether live rows are wanted, $3 finished states wanted, $4 and $5 the key to
-- start after, $6 limit, in (due_ms, id) order; $7 labels, $8 and $9 schedule_ms from and before, NULL = any. Live rows are read along tasks_due, at most $6 of a queue and shard;
-- where many queues are asked for, those that have rows are found by jumping along it (as `load` does).
WITH RECURSIVE present (shard, queue_id) AS (
    SELECT s.shard, 2147483647 FROM shards s WHERE $2 AND cardinality($1::int4[]) > 32
    UNION ALL
    SELECT h.shard, (SELECT t.queue_id FROM tasks t WHERE t.shard = h.shard AND t.queue_id < h.queue_id
                      ORDER BY t.queue_id DESC, t.due_ms DESC, t.id DESC LIMIT 1)
      FROM present h WHERE h.queue_id IS NOT NULL
), wanted AS (
    SELECT s.shard, q.queue_id FROM shards s CROSS JOIN unnest($1::int4[]) AS q (queue_id)
     WHERE $2 AND cardinality($1::int4[]) <= 32
    UNION ALL
    SELECT h.shard, h.queue_id FROM present h WHERE h.queue_id = ANY ($1)
)
SELECT * FROM (
    (SELECT t.id, t.shard, t.queue_id, 0::int2 AS state, t.schedule_ms, t.due_ms, t.accept_us, t.rev, t.attempt,
            t.budget, t.epoch, t.spec, t.labels, NULL::bytea AS payload, t.claim_ms, t.lateness_ms,
            NULL::int8 AS finish_ms, NULL::bytea AS result, t.last_started_ms, t.last_duration_ms, t.last_status,
            t.last_error
       FROM wanted w
      CROSS JOIN LATERAL (
            SELECT * FROM tasks t
             WHERE t.shard = w.shard AND t.queue_id = w.queue_id AND (t.due_ms, t.id) > ($4::int8, $5::uuid)
               AND ($7::jsonb IS NULL OR coalesce(t.labels, '{}') @> $7)
               AND ($8::int8 IS NULL OR t.schedule_ms >= $8) AND ($9::int8 IS NULL OR t.schedule_ms < $9)
             ORDER BY t.due_ms, t.id
             LIMIT $6) AS t
      ORDER BY t.due_ms, t.id
      LIMIT $6)
    UNION ALL
    (SELECT f.id, f.shard, f.queue_id, f.state, f.schedule_ms, f.due_ms, f.accept_us, f.rev, f.attempt,
            f.budget, f.epoch, f.spec, f.labels, NULL, NULL, f.lateness_ms,
            f.finish_ms, NULL, f.last_started_ms, f.last_duration_ms, f.last_status,
            f.last_error
       FROM unnest($1::int4[]) AS q (queue_id)
      CROSS JOIN LATERAL (
            SELECT * FROM finished f
             WHERE f.queue_id = q.queue_id AND f.state <> 2 AND f.state = ANY ($3::int2[])
               AND (f.due_ms, f.id) > ($4::int8, $5::uuid)
               AND ($7::jsonb IS NULL OR coalesce(f.labels, '{}') @> $7)
               AND ($8::int8 IS NULL OR f.schedule_ms >= $8) AND ($9::int8 IS NULL OR f.schedule_ms < $9)
             ORDER BY f.due_ms, f.id
             LIMIT $6) AS f
      ORDER BY f.due_ms, f.id
      LIMIT $6)
    UNION ALL
    (SELECT f.id, f.shard, f.queue_id, f.state, f.schedule_ms, f.due_ms, f.accept_us, f.rev, f.attempt,
            f.budget, f.epoch, f.spec, f.labels, NULL, NULL, f.lateness_ms,
            f.finish_ms, f.result, f.last_started_ms, f.last_duration_ms, f.last_status,
            f.last_error
       FROM unnest($1::int4[]) AS q (queue_id)
      CROSS JOIN LATERAL (
            SELECT * FROM finished f
             WHERE f.queue_id = q.queue_id AND f.state = 2 AND 2 = ANY ($3::int2[])
               AND (f.due_ms, f.id) > ($4::int8, $5::uuid)
               AND ($7::jsonb IS NULL OR coalesce(f.labels, '{}') @> $7)
               AND ($8::int8 IS NULL OR f.schedule_ms >= $8) AND ($9::int8 IS NULL OR f.schedule_ms < $9)
             ORDER BY f.due_ms, f.id
             LIMIT $6) AS f
      ORDER BY f.due_ms, f.id
      LIMIT $6)
) AS found
ORDER BY due_ms, id
LIMIT $6;

-- name: labels_first
-- The planner may not read a whole table because it thinks that labels are common: `few` finds out.
SET LOCAL enable_seqscan = off;

-- name: few
-- $1 labels, $2 how many rows are few. Whether no more have them.
SELECT count(*) <= $2
  FROM (SELECT FROM ((SELECT FROM tasks t WHERE t.labels IS NOT NULL AND t.labels @> $1::jsonb LIMIT $2 + 1)
                     UNION ALL
                     (SELECT FROM finished f WHERE f.labels IS NOT NULL AND f.labels @> $1::jsonb LIMIT $2 + 1)) AS u
         LIMIT $2 + 1) AS found;

-- name: labelled
-- `page` where few rows have the labels: all of those are read, by the index of labels, and sorted.
WITH live AS MATERIALIZED (
    SELECT t.id, t.shard, t.queue_id, 0::int2 AS state, t.schedule_ms, t.due_ms, t.accept_us, t.rev, t.attempt,
           t.budget, t.epoch, t.spec, t.labels, NULL::bytea AS payload, t.claim_ms, t.lateness_ms,
           NULL::int8 AS finish_ms, NULL::bytea AS result, t.last_started_ms, t.last_duration_ms, t.last_status,
           t.last_error
      FROM tasks t
     WHERE $2 AND t.labels IS NOT NULL AND t.labels @> $7::jsonb
), over AS MATERIALIZED (
    SELECT f.id, f.shard, f.queue_id, f.state, f.schedule_ms, f.due_ms, f.accept_us, f.rev, f.attempt, f.budget,
           f.epoch, f.spec, f.labels, NULL::bytea AS payload, NULL::int8 AS claim_ms, f.lateness_ms, f.finish_ms,
           f.result, f.last_started_ms, f.last_duration_ms, f.last_status, f.last_error
      FROM finished f
     WHERE f.state = ANY ($3::int2[]) AND f.labels IS NOT NULL AND f.labels @> $7::jsonb
)
SELECT * FROM (SELECT * FROM live UNION ALL SELECT * FROM over) AS found
 WHERE queue_id = ANY ($1::int4[]) AND (due_ms, id) > ($4::int8, $5::uuid)
   AND ($8::int8 IS NULL OR schedule_ms >= $8) AND ($9::int8 IS NULL OR schedule_ms < $9)
 ORDER BY due_ms, id
 LIMIT $6;

-- name: queue_numbers
-- $1 tenant, $2 name or NULL for all of its queues.
SELECT queue_id FROM queues WHERE tenant = $1 AND ($2::text IS NULL OR name = $2);

-- name: backlog
-- $1 queue, $2 now, $3 where counting ends, $4 the due time of what is held. Along tasks_due, index alone, a shard at a time.
SELECT (SELECT count(*)
          FROM (SELECT FROM shards s
                 CROSS JOIN LATERAL (SELECT FROM tasks t WHERE t.shard = s.shard AND t.queue_id = $1 LIMIT $3) AS t
                 LIMIT $3) AS l) AS live,
       (SELECT count(*)
          FROM (SELECT FROM shards s
                 CROSS JOIN LATERAL (SELECT FROM tasks t WHERE t.shard = s.shard AND t.queue_id = $1
                                        AND t.due_ms <= $2 LIMIT $3) AS t
                 LIMIT $3) AS d) AS due,
       (SELECT count(*)
          FROM (SELECT FROM shards s
                 CROSS JOIN LATERAL (SELECT FROM tasks t WHERE t.shard = s.shard AND t.queue_id = $1
                                        AND t.due_ms = $4 LIMIT $3) AS t
                 LIMIT $3) AS h) AS held;
