"""What is killed in the matrix: each operator with its arguments, and what must be so afterwards."""

from __future__ import annotations

import batch_subjects as batch
import load_subjects as load
import model_subjects as model
import promotion_subjects as promotion
import register_subjects as register
import retirement_subjects as retirement
import sensor_subjects as sensor
from cleanup_subjects import CleanUp
from subject import Subject

SUBJECTS: dict[str, type[Subject]] = {
    "batch": batch.Batch,
    "batch_deferred": batch.DeferredBatch,
    "batch_empty": batch.EmptyBatch,
    "batch_cleared": batch.ClearedBatch,
    "build_cleared": batch.ClearedBuild,
    "batch_killed": batch.KilledBatch,
    "batch_killed_late": batch.BatchKilledLate,
    "build_killed": batch.KilledBuild,
    "build_killed_late": batch.BuildKilledLate,
    "batch_hangs": batch.HangingBatch,
    "batch_hangs_live": batch.HangingBatchLive,
    "batch_hangs_cleared": batch.HangingBatchCleared,
    "load": load.Load,
    "load_new": load.LoadNew,
    "load_waits": load.LoadWaits,
    "load_hangs": load.HangingLoad,
    "load_hangs_live": load.HangingLoadLive,
    "run": load.Run,
    "run_hangs": load.HangingRun,
    "clean_up": CleanUp,
    "sensor": sensor.Sensor,
    "sensor_rescheduled": sensor.RescheduledSensor,
    "sensor_deferred": sensor.DeferredSensor,
    "register": register.Register,
    "register_first": register.RegisterFirst,
    "register_next": register.RegisterNext,
    "register_replacing": register.RegisterReplacing,
    "register_replacing_only": register.RegisterReplacingOnly,
    "register_reusing": register.RegisterReusing,
    "register_taken": register.RegisterTaken,
    "register_copy": register.RegisterCopy,
    "evaluate": model.Evaluate,
    "contest": model.Contest,
    "promote": promotion.Promote,
    "promote_bare": promotion.PromoteBare,
    "promote_copy": promotion.PromoteCopy,
    "promote_copy_first": promotion.PromoteCopyFirst,
    "roll_back": promotion.RollBack,
    "update": retirement.Update,
    "export": retirement.Export,
    "prune": retirement.Prune,
    "delete_version": retirement.DeleteVersion,
    "delete_model": retirement.DeleteModel,
    "run_schema": retirement.RunSchema,
    "run_schema_dropped": retirement.DropRunSchema,
    "run_schemas_swept": retirement.DropStaleRunSchemas,
    "batch_loses_rows": batch.BatchLosesRows,
    "batch_late_success": batch.BatchLateSuccess,
    "batch_late_done": batch.BatchLateDone,
    "batch_slow": batch.BatchSlow,
    "batch_slow_deferred": batch.DeferredBatchSlow,
    "batch_expired": batch.BatchExpired,
    "batch_expired_deferred": batch.DeferredBatchExpired,
    "batch_poll_errors": batch.BatchPollErrors,
    "batch_poll_errors_deferred": batch.DeferredBatchPollErrors,
    "batch_foreign": batch.BatchForeign,
    "batch_conflict": batch.BatchConflict,
    "batch_waits": batch.BatchWaits,
    "load_foreign": load.LoadForeign,
    "load_unfinished": load.LoadUnfinished,
    "run_foreign": load.RunForeign,
    "sensor_late_success": sensor.SensorLateSuccess,
    "sensor_late_done": sensor.SensorLateDone,
    "sensor_rescheduled_incomplete": sensor.RescheduledSensorIncomplete,
    "sensor_poll_errors": sensor.SensorPollErrors,
    "sensor_poll_errors_deferred": sensor.DeferredSensorPollErrors,
}
