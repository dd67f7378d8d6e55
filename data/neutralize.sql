-- what was queued in production does not run in a copy of it
UPDATE ir_async
   SET state = 'cancelled',
       session = NULL,
       revision = revision + 1
 WHERE state IN ('waiting', 'created', 'processing');
