-- Make the tables of the addon those of version 19.0.1.0.0, with jobs in every state. The schema and the encoded values are
-- from a dump of a database of that version. Both depend on no other record than the users 1 and 2.
SET ROLE odoo;
DROP FUNCTION ir_async_begin, ir_async_finish;
DROP TABLE ir_async, ir_async_after_rel, ir_async_channel, ir_async_progress, ir_async_stop, ir_async_start, ir_async_pause, ir_async_worker CASCADE;

CREATE TABLE ir_async (
    id integer NOT NULL,
    revision integer DEFAULT 1 NOT NULL,
    user_id integer NOT NULL,
    parent_id integer,
    priority integer NOT NULL,
    max_attempts integer,
    attempts integer DEFAULT 0,
    deaths integer DEFAULT 0,
    claims integer DEFAULT 0,
    session integer,
    name character varying,
    state character varying NOT NULL,
    res_model character varying NOT NULL,
    method character varying NOT NULL,
    retry_delay character varying,
    channel character varying NOT NULL,
    key character varying,
    database character varying DEFAULT current_database(),
    res_ids text NOT NULL,
    args text NOT NULL,
    kwargs text NOT NULL,
    context text NOT NULL,
    stack text,
    timeout numeric,
    notify boolean,
    dismissed boolean,
    su boolean,
    limited boolean,
    date_scheduled timestamp without time zone,
    create_date timestamp without time zone DEFAULT (clock_timestamp() AT TIME ZONE 'UTC'::text),
    date_start timestamp without time zone,
    date_done timestamp without time zone,
    payload json
)
WITH (autovacuum_vacuum_scale_factor='0.02', autovacuum_vacuum_threshold='1000');
CREATE TABLE ir_async_after_rel (
    job_id integer NOT NULL,
    after_id integer NOT NULL,
    unmet boolean DEFAULT true NOT NULL
);
CREATE TABLE ir_async_channel (
    id integer NOT NULL,
    capacity integer,
    create_uid integer,
    write_uid integer,
    name character varying NOT NULL,
    "interval" numeric,
    paused boolean,
    create_date timestamp without time zone,
    write_date timestamp without time zone,
    CONSTRAINT ir_async_channel_check_limits CHECK (((capacity >= 0) AND ("interval" >= (0)::numeric)))
);
COMMENT ON CONSTRAINT ir_async_channel_check_limits ON ir_async_channel IS 'CHECK (capacity >= 0 AND interval >= 0)';
CREATE SEQUENCE ir_async_channel_id_seq AS integer;
ALTER SEQUENCE ir_async_channel_id_seq OWNED BY ir_async_channel.id;
CREATE SEQUENCE ir_async_id_seq AS integer;
ALTER SEQUENCE ir_async_id_seq OWNED BY ir_async.id;
CREATE TABLE ir_async_progress (
    id integer NOT NULL,
    job_id integer NOT NULL,
    message character varying,
    done numeric,
    total numeric
);
CREATE SEQUENCE ir_async_progress_id_seq AS integer;
ALTER SEQUENCE ir_async_progress_id_seq OWNED BY ir_async_progress.id;
CREATE TABLE ir_async_stop (
    id integer NOT NULL,
    job_id integer NOT NULL,
    reason character varying NOT NULL
);
CREATE SEQUENCE ir_async_stop_id_seq AS integer;
ALTER SEQUENCE ir_async_stop_id_seq OWNED BY ir_async_stop.id;
CREATE UNLOGGED TABLE ir_async_worker (
    id integer NOT NULL,
    pid integer,
    process_key integer,
    host character varying,
    limit_time_real numeric,
    server_start timestamp without time zone,
    date_ready timestamp without time zone
);
CREATE SEQUENCE ir_async_worker_id_seq AS integer CYCLE;
ALTER SEQUENCE ir_async_worker_id_seq OWNED BY ir_async_worker.id;
ALTER TABLE ir_async ALTER COLUMN id SET DEFAULT nextval('ir_async_id_seq'::regclass);
ALTER TABLE ir_async_channel ALTER COLUMN id SET DEFAULT nextval('ir_async_channel_id_seq'::regclass);
ALTER TABLE ir_async_progress ALTER COLUMN id SET DEFAULT nextval('ir_async_progress_id_seq'::regclass);
ALTER TABLE ir_async_stop ALTER COLUMN id SET DEFAULT nextval('ir_async_stop_id_seq'::regclass);
ALTER TABLE ir_async_worker ALTER COLUMN id SET DEFAULT nextval('ir_async_worker_id_seq'::regclass);
ALTER TABLE ir_async_after_rel ADD CONSTRAINT ir_async_after_rel_pkey PRIMARY KEY (job_id, after_id);
ALTER TABLE ir_async_channel ADD CONSTRAINT ir_async_channel_pkey PRIMARY KEY (id);
ALTER TABLE ir_async ADD CONSTRAINT ir_async_pkey PRIMARY KEY (id);
ALTER TABLE ir_async_progress ADD CONSTRAINT ir_async_progress_pkey PRIMARY KEY (id);
ALTER TABLE ir_async_stop ADD CONSTRAINT ir_async_stop_pkey PRIMARY KEY (id);
ALTER TABLE ir_async_worker ADD CONSTRAINT ir_async_worker_pkey PRIMARY KEY (id);
CREATE INDEX ir_async__parent_id_index ON ir_async (parent_id) WHERE (parent_id IS NOT NULL);
CREATE INDEX ir_async_after_rel_after_id_job_id_idx ON ir_async_after_rel (after_id, job_id);
CREATE INDEX ir_async_after_rel_after_idx ON ir_async_after_rel (after_id) WHERE unmet;
CREATE INDEX ir_async_after_rel_unmet_idx ON ir_async_after_rel (job_id) WHERE unmet;
CREATE UNIQUE INDEX ir_async_channel_name_uniq ON ir_async_channel (name);
COMMENT ON INDEX ir_async_channel_name_uniq IS 'UNIQUE INDEX (name)';
CREATE INDEX ir_async_claim_idx ON ir_async (priority, id) WHERE (((state)::text = 'created'::text) AND (date_scheduled IS NULL) AND (NOT limited));
COMMENT ON INDEX ir_async_claim_idx IS 'INDEX (priority, id) WHERE state = ''created'' AND date_scheduled IS NULL AND NOT limited';
CREATE INDEX ir_async_limited_channel_idx ON ir_async (channel, priority, id) WHERE (((state)::text = 'created'::text) AND (date_scheduled IS NULL) AND limited);
COMMENT ON INDEX ir_async_limited_channel_idx IS 'INDEX (channel, priority, id) WHERE state = ''created'' AND date_scheduled IS NULL AND limited';
CREATE INDEX ir_async_limited_claim_idx ON ir_async (priority, id) WHERE (((state)::text = 'created'::text) AND (date_scheduled IS NULL) AND limited);
COMMENT ON INDEX ir_async_limited_claim_idx IS 'INDEX (priority, id) WHERE state = ''created'' AND date_scheduled IS NULL AND limited';
CREATE INDEX ir_async_limited_start_idx ON ir_async (channel, date_start) WHERE limited;
COMMENT ON INDEX ir_async_limited_start_idx IS 'INDEX (channel, date_start) WHERE limited';
CREATE UNIQUE INDEX ir_async_live_key_uniq ON ir_async (key, (CASE WHEN notify THEN user_id ELSE 0 END)) WHERE ((key IS NOT NULL) AND ((state)::text = ANY ((ARRAY['waiting'::character varying, 'created'::character varying, 'processing'::character varying])::text[])));
COMMENT ON INDEX ir_async_live_key_uniq IS 'UNIQUE INDEX (key, (CASE WHEN notify THEN user_id ELSE 0 END)) WHERE key IS NOT NULL AND state IN (''waiting'', ''created'', ''processing'')';
CREATE INDEX ir_async_notified_idx ON ir_async (user_id, id) WHERE (notify AND (dismissed IS NOT TRUE));
COMMENT ON INDEX ir_async_notified_idx IS 'INDEX (user_id, id) WHERE notify AND dismissed IS NOT TRUE';
CREATE UNIQUE INDEX ir_async_progress_job_uniq ON ir_async_progress (job_id);
COMMENT ON INDEX ir_async_progress_job_uniq IS 'UNIQUE INDEX (job_id)';
CREATE INDEX ir_async_scheduled_idx ON ir_async (date_scheduled) WHERE (((state)::text = 'created'::text) AND (date_scheduled IS NOT NULL));
COMMENT ON INDEX ir_async_scheduled_idx IS 'INDEX (date_scheduled) WHERE state = ''created'' AND date_scheduled IS NOT NULL';
CREATE INDEX ir_async_session_idx ON ir_async (session) WHERE ((state)::text = 'processing'::text);
COMMENT ON INDEX ir_async_session_idx IS 'INDEX (session) WHERE state = ''processing''';
CREATE UNIQUE INDEX ir_async_stop_job_uniq ON ir_async_stop (job_id);
COMMENT ON INDEX ir_async_stop_job_uniq IS 'UNIQUE INDEX (job_id)';
CREATE INDEX ir_async_waiting_idx ON ir_async (id) WHERE ((state)::text = 'waiting'::text);
COMMENT ON INDEX ir_async_waiting_idx IS 'INDEX (id) WHERE state = ''waiting''';
ALTER TABLE ir_async_after_rel ADD CONSTRAINT ir_async_after_rel_after_id_fkey FOREIGN KEY (after_id) REFERENCES ir_async(id) ON DELETE CASCADE;
ALTER TABLE ir_async_after_rel ADD CONSTRAINT ir_async_after_rel_job_id_fkey FOREIGN KEY (job_id) REFERENCES ir_async(id) ON DELETE CASCADE;
ALTER TABLE ir_async_channel ADD CONSTRAINT ir_async_channel_create_uid_fkey FOREIGN KEY (create_uid) REFERENCES res_users(id) ON DELETE SET NULL;
ALTER TABLE ir_async_channel ADD CONSTRAINT ir_async_channel_write_uid_fkey FOREIGN KEY (write_uid) REFERENCES res_users(id) ON DELETE SET NULL;
ALTER TABLE ir_async ADD CONSTRAINT ir_async_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES ir_async(id) ON DELETE SET NULL;
ALTER TABLE ir_async_progress ADD CONSTRAINT ir_async_progress_job_id_fkey FOREIGN KEY (job_id) REFERENCES ir_async(id) ON DELETE CASCADE;
ALTER TABLE ir_async_stop ADD CONSTRAINT ir_async_stop_job_id_fkey FOREIGN KEY (job_id) REFERENCES ir_async(id) ON DELETE CASCADE;
ALTER TABLE ir_async ADD CONSTRAINT ir_async_user_id_fkey FOREIGN KEY (user_id) REFERENCES res_users(id) ON DELETE CASCADE;

INSERT INTO ir_async (
    id, state, method, args, name, notify, channel, limited, claims, attempts, revision,
    res_model, res_ids, kwargs, user_id, su, context, stack, priority, max_attempts)
SELECT id, state, method, args, name, name IS NOT NULL, channel, channel != 'default', claims, attempts, revision,
       'test.async.effect', '[]', '{}', 2, true, '{"lang":"en_US","tz":false,"uid":2}', '[]', 10, 1
  FROM (VALUES
    (1, 'done', 'effect', '["ended"]', NULL, 'default', 1, 1, 3),  -- ended
    (2, 'succeeded', 'parameter', '["web.base.url"]', 'Address', 'default', 1, 1, 3),  -- a result
    (3, 'failed', 'effect', '["retried"]', 'Broken', 'default', 1, 1, 3),  -- failed
    (4, 'created', 'fail_first', '["again",1]', NULL, 'default', 1, 1, 3),  -- failed once, the next attempt is due
    (5, 'cancelled', 'effect', '["cancelled"]', 'Given up', 'default', 0, 0, 2),  -- cancelled, and no longer shown
    (6, 'processing', 'effect', '["rescued"]', 'Long', 'default', 2, 0, 4),  -- its worker was killed
    (7, 'processing', 'hang_in_loop', '["stopped"]', 'Stopped', 'default', 1, 0, 2),  -- its worker ended while it was being cancelled
    (8, 'created', 'effect', '["plain"]', NULL, 'default', 0, 0, 1),  -- queued by another job
    (9, 'created', 'effect', '[]', NULL, 'default', 0, 0, 1),  -- another user, keywords
    (10, 'created', 'effect', '[{"$records":["res.partner",[1,3]]},{"$datetime":"2026-11-28T01:02:03.000004"},{"$date":"2026-11-28"},{"$decimal":"1.10"},{"$bytes":"AP8="},{"$tuple":[1,{"$tuple":[2]}]},{"$set":["a"]},{"date":null,"b":[1.5,1180591620717411303424]},"\u00e9\u2028"]', NULL, 'default', 0, 0, 1),  -- for later, with values of every type
    (11, 'created', 'effect', '["due"]', NULL, 'default', 0, 0, 1),  -- due
    (12, 'created', 'timed', '["capped 0",0.2]', NULL, 'capped', 0, 0, 1),  -- one at a time
    (13, 'created', 'timed', '["capped 1",0.2]', NULL, 'capped', 0, 0, 1),  -- one at a time
    (14, 'created', 'timed', '["capped 2",0.2]', NULL, 'capped', 0, 0, 1),  -- one at a time
    (15, 'created', 'effect', '["paused"]', NULL, 'paused/a', 0, 0, 1),  -- paused
    (16, 'created', 'effect', '["keyed"]', NULL, 'default', 0, 0, 1),  -- one key, of everybody
    (17, 'created', 'effect', '["mine"]', 'Mine', 'default', 0, 0, 1),  -- and of the user
    (18, 'waiting', 'effect', '["child"]', NULL, 'default', 0, 0, 1),  -- children: of an ended job and a queued one
    (19, 'waiting', 'effect', '["child of failed"]', NULL, 'default', 0, 0, 1),  -- of a failed job
    (20, 'waiting', 'effect', '["first of chain"]', NULL, 'default', 0, 0, 1),  -- a chain
    (21, 'waiting', 'effect', '["end of chain"]', 'Chain', 'default', 0, 0, 1)  -- a chain
) AS job (id, state, method, args, name, channel, claims, attempts, revision);
UPDATE ir_async SET date_start = '2020-01-01 00:10:08.711566', date_done = '2020-01-01 00:10:08.755943' WHERE id = 1;
UPDATE ir_async SET date_start = '2020-01-01 00:10:08.711566', date_done = '2020-01-01 00:10:08.755943', payload = '{"result": "http://localhost:8069"}', stack = '[["/opt/odoo/addons/sale/models/sale_order.py",12,"action_confirm"],["/opt/odoo/addons/sale/models/sale_order.py",34,"_export"]]' WHERE id = 2;
UPDATE ir_async SET date_start = '2020-01-01 00:10:08.711566', date_done = '2020-01-01 00:10:08.755943', payload = '{"error": {"code": 0, "message": "Odoo Server Error", "data": {"name": "builtins.ValueError", "message": "failed", "arguments": ["failed"], "context": {}, "debug": "Traceback (most recent call last):\n  File \"async_effect.py\", line 1, in fail\nValueError: failed\n"}}}' WHERE id = 3;
UPDATE ir_async SET date_scheduled = '2020-01-01 01:10:08.836807', max_attempts = 3, retry_delay = '[3600, 7200]', timeout = 600, date_start = '2020-01-01 00:10:08.711566', payload = '{"error": {"code": 0, "message": "Odoo Server Error", "data": {"name": "builtins.ValueError", "message": "again", "arguments": ["again"], "context": {}, "debug": "Traceback (most recent call last):\n  File \"async_effect.py\", line 1, in fail\nValueError: again\n"}}}' WHERE id = 4;
UPDATE ir_async SET date_done = '2020-01-01 00:10:08.755943', dismissed = true WHERE id = 5;
UPDATE ir_async SET deaths = 1, session = 1, date_start = '2020-01-01 00:10:08.711566' WHERE id = 6;
UPDATE ir_async SET session = 2, date_start = '2020-01-01 00:10:08.711566' WHERE id = 7;
UPDATE ir_async SET parent_id = 1, stack = '[["/opt/odoo/addons/sale/models/sale_order.py",12,"action_confirm"],["/opt/odoo/addons/sale/models/sale_order.py",34,"_export"]]' WHERE id = 8;
UPDATE ir_async SET kwargs = '{"name":"urgent","seconds":0.0}', user_id = 1, su = false, priority = 1, context = '{"lang":"en_US","tz":false,"uid":1}' WHERE id = 9;
UPDATE ir_async SET date_scheduled = '2126-01-01 00:00:00' WHERE id = 10;
UPDATE ir_async SET date_scheduled = '2020-01-01 00:10:44.78635' WHERE id = 11;
UPDATE ir_async SET key = 'sync' WHERE id = 16;
UPDATE ir_async SET key = 'sync' WHERE id = 17;
UPDATE ir_async SET key = 'chain' WHERE id = 21;
INSERT INTO ir_async_after_rel (job_id, after_id, unmet) VALUES (2, 1, false), (18, 1, true), (18, 8, true), (19, 3, true), (20, 8, true), (21, 20, true);
INSERT INTO ir_async_channel (name, capacity, interval, paused, create_uid, write_uid)
VALUES ('export', 1, NULL, NULL, 1, 1), ('capped', 1, NULL, NULL, 1, 1), ('paused', 2, NULL, true, 1, 1);
INSERT INTO ir_async_progress (job_id, done, total, message) VALUES (6, 99393, 6000000, '99393 reported');
INSERT INTO ir_async_stop (job_id, reason) VALUES (7, 'cancel');
INSERT INTO ir_async_worker (pid, process_key, host, limit_time_real, server_start, date_ready)
VALUES (4950, 901803656, 'vm', 3600, '2020-01-01 00:05:46.248291', '2020-01-01 00:10:08.729358'),
       (5512, 1654016032, 'vm', 3600, '2020-01-01 00:05:46.248291', '2020-01-01 00:10:40.13151');
SELECT setval('ir_async_id_seq', 21);

-- What Odoo notes about the module, as far as it differs.
UPDATE ir_module_module SET latest_version = '19.0.1.0.0' WHERE name = 'ir_async';
WITH renamed (model, new, old) AS (
    VALUES ('ir.async', 'origin', 'database'), ('ir.async', 'worker_id', 'session'), ('ir.async', 'claim_number', 'claims'),
           ('ir.async.worker', 'process_number', 'process_key')
), field AS (
    UPDATE ir_model_fields
       SET name = old, ttype = CASE ttype WHEN 'many2one' THEN 'integer' ELSE ttype END, relation = NULL
      FROM renamed
     WHERE ir_model_fields.model = renamed.model AND name = new
 RETURNING ir_model_fields.id, replace(renamed.model, '.', '_') AS model, old
)
UPDATE ir_model_data
   SET name = 'field_' || field.model || '__' || old
  FROM field
 WHERE module = 'ir_async' AND ir_model_data.model = 'ir.model.fields' AND res_id = field.id;
UPDATE ir_model_constraint
   SET name = 'ir_async_session_idx', definition = 'INDEX (session) WHERE state = ''processing'''
 WHERE name = 'ir_async_worker_idx';
UPDATE ir_model_data SET name = 'constraint_ir_async_session_idx' WHERE name = 'constraint_ir_async_worker_idx';
INSERT INTO ir_model_constraint (name, type, model, module, create_date)
     SELECT 'ir_async_parent_id_fkey', 'f', (SELECT id FROM ir_model WHERE model = 'ir.async'), id, now()
       FROM ir_module_module
      WHERE name = 'ir_async';
WITH field AS (
    INSERT INTO ir_model_fields (model, model_id, name, field_description, ttype, state, store)
         SELECT model, model_id, old, field_description, 'float', state, store
           FROM ir_model_fields, unnest(ARRAY['limit_time_real', 'date_ready']) AS old
          WHERE model = 'ir.async.worker' AND name = 'pid'
      RETURNING id, name
)
INSERT INTO ir_model_data (module, name, model, res_id)
     SELECT 'ir_async', 'field_ir_async_worker__' || name, 'ir.model.fields', id FROM field;
INSERT INTO ir_model_data (module, name, model, res_id, noupdate)
     SELECT 'ir_async', 'ir_async_channel_export', 'ir.async.channel', id, true FROM ir_async_channel WHERE name = 'export'
      UNION ALL
     SELECT 'ir_async', 'ir_config_parameter_' || split_part(key, '.', 2), 'ir.config_parameter', id, true
       FROM ir_config_parameter
      WHERE key IN ('ir_async.export', 'ir_async.report');
