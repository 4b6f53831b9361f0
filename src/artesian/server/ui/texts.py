"""All that the dashboard says by itself, in English and Chinese. What it passes on is in the ``phrasebook``."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Language = Literal["en", "zh"]
LANGUAGES: Mapping[Language, str] = {"en": "English", "zh": "中文"}
"""Each by its own name."""
_CODES: Mapping[str, Language] = {code: code for code in LANGUAGES}
LOCALES: Mapping[Language, str] = {"en": "en", "zh": "zh-CN"}

TABLE: Mapping[str, tuple[str, str]] = {
    # -- frame
    "skip": ("Skip to the content", "跳到正文"),
    "pages": ("Pages", "页面"),
    "language": ("Language", "语言"),
    "overview": ("Overview", "总览"),
    "fleet": ("Fleet", "集群"),
    "queue": ("Queue", "队列"),
    "job": ("Job", "作业"),
    "simulate": ("Simulate", "模拟"),
    "logged_in": ("{user} ({role})", "{user}（{role}）"),
    "log_out": ("Log out", "退出"),
    "loading": ("Loading …", "正在加载……"),
    "unknown": ("unknown", "未知"),
    "none": ("none", "无"),
    "colon": (": ", "："),
    "semicolon": ("; ", "；"),
    "refresh": ("Refresh", "刷新"),
    "close": ("Close", "关闭"),
    "failed": ("This cannot be shown", "无法显示"),
    "broken": ("The server failed; its log says where.", "服务器出错，详情见其日志。"),
    "hint": ("What helps: {hint}", "建议：{hint}"),
    "no_page": ("There is no such page.", "没有这个页面。"),
    # -- login
    "login": ("Log in", "登录"),
    "token": ("Token", "令牌"),
    "login_how": (
        "This server asks for a token. On its machine: artesian token create --user NAME --role viewer",
        "此服务器需要令牌。在服务器上运行：artesian token create --user NAME --role viewer",
    ),
    "single_sign_on": ("Log in with your organisation's account", "使用组织账号登录"),
    "login_wrong": ("The token is not known here, or expired, or revoked.", "令牌未知、已过期或已撤销。"),
    "login_often": ("Too many tokens were tried from here. Try again later.", "尝试次数过多，请稍后再试。"),
    # -- overview
    "waterfall": ("Where the compute goes", "算力去向"),
    "waterfall_unit": (
        "In {unit}, since the first record. What is lost is listed under the stage that loses it.",
        "单位：{unit}，自首条记录起。损失列在造成它的阶段之下。",
    ),
    "device_hours": ("device-hours", "设备·小时"),
    "device_seconds": ("device-seconds", "设备·秒"),
    "no_waterfall": ("Nothing is known yet: no node has joined.", "尚无数据：还没有节点加入。"),
    "stage.nameplate": ("Nameplate", "标称"),
    "stage.healthy": ("Healthy", "健康"),
    "stage.allocated": ("Allocated", "已分配"),
    "stage.productive": ("Productive", "有效"),
    "stage.model_flops": ("Model FLOPs", "模型 FLOPs"),
    "losses": ("The three largest losses", "最大的三项损失"),
    "no_losses": ("Nothing was lost so far.", "目前没有损失。"),
    "recover": ("What would recover it", "如何挽回"),
    "loss.node_lost": ("Nodes gone", "节点丢失"),
    "loss.excluded": ("Nodes excluded", "节点停用"),
    "loss.idle": ("Idle", "空闲"),
    "loss.waiting": ("Free while jobs wait", "有作业等待却空闲"),
    "loss.start_up": ("Start-up", "启动"),
    "loss.detection": ("Detecting hangs", "发现挂起"),
    "loss.recovery": ("Recovery", "故障恢复"),
    "loss.restore": ("Restoring checkpoints", "读取检查点"),
    "loss.data_wait": ("Waiting for data", "等待数据"),
    "loss.checkpoint_stall": ("Checkpoint stalls", "检查点停顿"),
    "loss.evaluation": ("Evaluation", "评估"),
    "loss.straggler": ("Waiting for stragglers", "等待慢进程"),
    "loss.lost_work": ("Lost work", "丢失的工作"),
    "loss.wind_down": ("Wind-down", "收尾"),
    "loss.between_steps": ("Between steps", "步间空隙"),
    "loss.unmeasured": ("Not measured", "未测量"),
    "loss.below_ceiling": ("Below the ceiling", "低于算力上限"),
    "recover.node_lost": (
        "Repair or replace the nodes that are gone; the fleet page shows them.",
        "修复或更换丢失的节点，见集群页面。",
    ),
    "recover.excluded": (
        "Mend the nodes that are kept out of use, and return them: artesian nodes return.",
        "修好停用的节点，再用 artesian nodes return 恢复使用。",
    ),
    "recover.idle": (
        "Submit more work, or let elastic and low-priority jobs fill what is free.",
        "提交更多作业，或让弹性与低优先级作业填满空闲设备。",
    ),
    "recover.waiting": (
        "See in the queue why jobs wait: smaller or elastic gangs, estimated durations, and a backfilling policy fill gaps.",
        "在队列中查看等待原因：更小或弹性的作业组、预计时长和回填策略都能填补空隙。",
    ),
    "recover.start_up": (
        "Shorten imports, compilation and data loading before the first step; cache what they make.",
        "缩短首步之前的导入、编译和数据加载，并缓存其结果。",
    ),
    "recover.detection": (
        "Lower the time after which a silent worker counts as hung.",
        "缩短判定工作进程挂起的时限。",
    ),
    "recover.recovery": (
        "Restart the gang in place with artesian launch, and keep recent checkpoints near the devices.",
        "用 artesian launch 原地重启作业组，并把最近的检查点放在设备附近。",
    ),
    "recover.restore": (
        "Read checkpoints from memory or a local disk rather than from remote storage.",
        "从内存或本地磁盘而非远程存储读取检查点。",
    ),
    "recover.data_wait": (
        "More loader workers, prefetching, or faster storage.",
        "增加数据加载进程、预取，或使用更快的存储。",
    ),
    "recover.checkpoint_stall": (
        "Save asynchronously, or less often: the goodput command works out the best interval.",
        "异步保存，或降低频率：goodput 命令可算出最佳间隔。",
    ),
    "recover.evaluation": (
        "Evaluate less often, or in a job of its own.",
        "减少评估次数，或放到单独的作业中。",
    ),
    "recover.straggler": (
        "Exclude the node that is slow, or let artesian launch replace the worker: artesian why JOB names it.",
        "停用变慢的节点，或由 artesian launch 更换该进程：artesian why JOB 会指出是哪个。",
    ),
    "recover.lost_work": (
        "Save more often: steps since the last checkpoint are done again after a failure.",
        "更频繁地保存：故障后要重做上次检查点之后的步骤。",
    ),
    "recover.wind_down": ("End the process soon after the last step.", "最后一步之后尽快结束进程。"),
    "recover.between_steps": (
        "Look at what the script does between steps: logging, synchronisation, garbage collection.",
        "检查脚本在步与步之间做了什么：日志、同步、垃圾回收。",
    ),
    "recover.unmeasured": (
        "Let the script report its steps (artesian.train), so that this can be told apart.",
        "让脚本报告步骤（artesian.train），才能区分这部分时间。",
    ),
    "recover.below_ceiling": (
        "Larger batches, lower precision, fused kernels, less waiting for communication.",
        "更大的批量、更低的精度、融合算子、减少通信等待。",
    ),
    "jobs_by_state": ("Jobs by state", "各状态作业数"),
    "latest_jobs": ("Latest jobs", "最近的作业"),
    "no_jobs": ("No jobs yet. The first one:", "还没有作业。提交第一个："),
    # -- states
    "state.queued": ("queued", "排队中"),
    "state.backing_off": ("backing off", "退避中"),
    "state.starting": ("starting", "启动中"),
    "state.running": ("running", "运行中"),
    "state.stopping": ("stopping", "停止中"),
    "state.succeeded": ("succeeded", "成功"),
    "state.failed": ("failed", "失败"),
    "state.cancelled": ("cancelled", "已取消"),
    # -- why an attempt ended
    "cause.completed": ("completed", "完成"),
    "cause.user_error": ("user error", "用户错误"),
    "cause.signal": ("signal", "被信号终止"),
    "cause.oom_kill": ("oom kill", "内存不足被终止"),
    "cause.node_lost": ("node lost", "节点丢失"),
    "cause.start_failed": ("start failed", "启动失败"),
    "cause.preempted": ("preempted", "被抢占"),
    "cause.cancelled": ("cancelled", "已取消"),
    "cause.resized": ("resized", "调整规模"),
    # -- roles
    "role.viewer": ("viewer", "只读"),
    "role.member": ("member", "成员"),
    "role.operator": ("operator", "运维"),
    "role.admin": ("admin", "管理员"),
    # -- fields
    "id": ("Id", "编号"),
    "state": ("State", "状态"),
    "team": ("Team", "团队"),
    "user": ("User", "用户"),
    "devices": ("Devices", "设备"),
    "priority": ("Priority", "优先级"),
    "submitted": ("Submitted", "提交时间"),
    "waiting_since": ("Waiting since", "等待开始"),
    "command": ("Command", "命令"),
    "place": ("Place", "位置"),
    "start": ("Start", "开始"),
    "end": ("End", "结束"),
    "outcome": ("Outcome", "结果"),
    "attempt": ("Attempt", "尝试"),
    "for_s": ("{duration} ago", "{duration}前"),
    # -- fleet
    "fleet_how": (
        "One square is one node; darker is fuller, a red cross is a node that is gone, and a struck square one that is excluded. Choose one with the mouse, or with the arrow keys and Enter.",
        "每个方块是一个节点；颜色越深占用越多，红叉表示节点丢失，斜线表示节点停用。用鼠标选择，或用方向键和回车键。",
    ),
    "no_nodes": ("No nodes yet: the scheduler has not taken stock of them.", "还没有节点：调度器尚未清点。"),
    "map_centers": (
        "Nodes by center and pool, {count} in all",
        "按数据中心和资源池显示的节点，共 {count} 个",
    ),
    "map": ("Nodes by pool, {count} in all", "按资源池显示的节点，共 {count} 个"),
    "kinds_centers": ("Devices by model, center and pool", "按型号、数据中心和资源池统计的设备"),
    "kinds": ("Devices by model and pool", "按型号和资源池统计的设备"),
    "model": ("Model", "型号"),
    "pool": ("Pool", "资源池"),
    "center": ("Center", "数据中心"),
    "center_of": ("Center {center} · nodes: {count}", "数据中心 {center} · 节点数：{count}"),
    "nodes": ("Nodes", "节点"),
    "held": ("Held", "占用"),
    "free": ("Free", "空闲"),
    "lost": ("Gone", "丢失"),
    "excluded": ("Excluded", "停用"),
    "node": ("Node", "节点"),
    "up": ("up", "在线"),
    "down": ("gone", "丢失"),
    "cpus": ("CPUs", "CPU 数"),
    "memory": ("Memory", "内存"),
    "device_memory": ("Memory of a device", "单设备显存"),
    "peak": ("Peak of a device (dense 16 bit)", "单设备峰值（稠密 16 位）"),
    "jobs_here": ("Jobs here", "此处的作业"),
    "device": ("Device", "设备"),
    "devices_of": ("Devices of {node}", "{node} 的设备"),
    "occupied": ("by others, outside of artesian", "被 artesian 之外的用户占用"),
    "ceiling.bf16": ("Ceiling of a device, bf16", "单设备算力上限（bf16）"),
    "ceiling.fp32": ("Ceiling of a device, fp32", "单设备算力上限（fp32）"),
    "node_gone": ("The node is not known any more.", "该节点已不存在。"),
    # -- queue
    "queue_order": (
        "In the order of submits. {count} jobs wait.",
        "按提交顺序排列。共 {count} 个作业等待。",
    ),
    "teams": ("Devices held and jobs, by team", "各团队占用的设备和作业"),
    "weight": ("Weight", "权重"),
    "guaranteed": ("Guaranteed", "保障配额"),
    "may_borrow": ("May borrow", "可借用上限"),
    "borrowed": ("Borrowed", "已借用"),
    "no_limit": ("no limit", "不限"),
    "no_queue": ("Nothing waits.", "没有等待的作业。"),
    "why": ("Why?", "为什么？"),
    "why_of": ("Why {job} waits", "{job} 为何等待"),
    "why_label": ("Why does {job} wait?", "{job} 为何等待？"),
    "unblock": ("What would unblock it", "如何解除"),
    "likely_start": ("Likely to start", "预计开始"),
    "would_start": ("Would start now", "以下情况可立即开始"),
    "show_more": ("Show more", "显示更多"),
    # -- job
    "no_job": ("This job is not known here.", "没有这个作业。"),
    "to_overview": ("Back to the overview", "返回总览"),
    "attempts": ("Attempts", "历次尝试"),
    "large_place": (
        "{devices} devices on {nodes} nodes, {first} to {last}",
        "{nodes} 个节点上的 {devices} 个设备，{first} 至 {last}",
    ),
    "no_attempts": ("It has not started yet.", "尚未开始。"),
    "recoveries": ("Recoveries", "故障恢复"),
    "recovered": (
        "{cause}: {duration} to the first new step, resumed from step {step}",
        "{cause}：{duration}后恢复训练，从第 {step} 步继续",
    ),
    "not_recovered": ("{cause}: no step has followed yet", "{cause}：尚未恢复训练"),
    "since": ("since", "开始于"),
    "stragglers": ("Stragglers", "慢进程"),
    "stragglers_unknown": (
        "Unknown: the script does not look for them. Run.from_env(..., stragglers=StragglerPolicy()) does.",
        "未知：脚本没有检测。Run.from_env(..., stragglers=StragglerPolicy()) 可开启检测。",
    ),
    "straggler_now": (
        "Worker {worker} on {place} computes {ratio} times as long as the middle one; each of the others has waited {waited} (attempt {epoch})",
        "{place} 上的进程 {worker} 计算耗时是中位进程的 {ratio} 倍；其余进程各等待了 {waited}（第 {epoch} 次尝试）",
    ),
    "straggler_past": (
        "Worker {worker} on {place} computed {ratio} times as long as the middle one; each of the others waited {waited} (attempt {epoch})",
        "{place} 上的进程 {worker} 计算耗时曾是中位进程的 {ratio} 倍；其余进程各等待了 {waited}（第 {epoch} 次尝试）",
    ),
    "straggler_exclude": (
        "artesian nodes exclude {node} --stop --reason slow lets the job go on elsewhere. Under artesian launch, StragglerPolicy(replaces=True) has a spare node take its place.",
        "artesian nodes exclude {node} --stop --reason slow 可让作业换到其他节点继续。使用 artesian launch 时，StragglerPolicy(replaces=True) 会由备用节点接替。",
    ),
    "straggler_census": (
        "artesian census tells whether the device is slow; look for what else keeps it busy. Under artesian launch, StragglerPolicy(replaces=True) has the process started anew.",
        "artesian census 可检查设备是否变慢；也请查看是否有其他程序占用。使用 artesian launch 时，StragglerPolicy(replaces=True) 会重启该进程。",
    ),
    "replicas": ("Replicas", "模型副本"),
    "replicas_alike": ("They are alike.", "各副本一致。"),
    "replicas_differ": (
        "After step {step} the parameters of workers {workers} were not those of the others (attempt {epoch})",
        "第 {step} 步之后，进程 {workers} 的参数与其余进程不同（第 {epoch} 次尝试）",
    ),
    "training": ("Training", "训练"),
    "no_training": (
        "No steps were reported. A script reports them with artesian.train.",
        "没有报告训练步骤。脚本可用 artesian.train 报告。",
    ),
    "steps": ("Steps", "步数"),
    "loss": ("Loss", "损失值"),
    "tokens_per_s": ("Tokens/s", "Token/秒"),
    "mfu": ("MFU", "MFU"),
    "curve": ("{name} by step", "{name}（按步）"),
    "log": ("Latest output", "最新输出"),
    "no_log": ("Nothing was printed yet.", "尚无输出。"),
    "cancel": ("Cancel job", "取消作业"),
    "cancel_sure": (
        "Cancel {job}? It gets SIGTERM, and SIGKILL after {grace}.",
        "取消 {job}？先发送 SIGTERM，{grace}后发送 SIGKILL。",
    ),
    "cancel_yes": ("Yes, cancel it", "是，取消"),
    "cancel_no": ("No, keep it", "否，保留"),
    "cancelled": ("{job} was told to stop.", "已通知 {job} 停止。"),
    "resize": ("Resize job", "调整作业规模"),
    "resize_of": ("Resize {job}", "调整 {job} 的规模"),
    "resize_asks": ("It asks for {devices}.", "目前请求 {devices}。"),
    "resize_form": (
        "Write how many from now on: 8, or 4..8 for as many as there are.",
        "请写新的数量：8，或 4..8 表示有多少用多少。",
    ),
    "resize_waiting": (
        "As it waits, it asks for as many at once. How many workers it has stays as its file says.",
        "立即按新的数量排队。工作进程数仍以作业文件为准。",
    ),
    "resize_running": (
        "If it does not hold as many, it gets SIGTERM, and SIGKILL after {grace}; it waits for its devices, and goes on from its latest checkpoint.",
        "若当前占用的数量不符：先发送 SIGTERM，{grace}后发送 SIGKILL；作业等待设备，再从最近的检查点继续。",
    ),
    "resize_yes": ("Resize", "调整"),
    "resize_no": ("Leave as it is", "保持不变"),
    "resize_same": ("It asks for as many already.", "已经是这个数量。"),
    "resize_wrong": (
        "Write a whole number such as 8, two such as 4..8 with the smaller first, or a share of one device such as 0.5.",
        "请写整数（如 8）、范围（如 4..8，小的在前），或单个设备的份额（如 0.5）。",
    ),
    "resize_impossible": ("These nodes can never hold it. {why}", "这些节点永远容不下它。{why}"),
    "resize_over": ("The job is over.", "作业已结束。"),
    "resized_waiting": ("{job} asks for {devices} now.", "{job} 现在请求 {devices}。"),
    "resized_holding": (
        "{job} asks for {devices} now: it holds as many, and runs on.",
        "{job} 现在请求 {devices}：数量相符，继续运行。",
    ),
    "resized_stopping": (
        "{job} was told to stop, and goes on with {devices}.",
        "已通知 {job} 停止，之后以 {devices} 继续。",
    ),
    "forbidden": ("Your role does not allow this.", "您的角色无权执行此操作。"),
    # -- simulate
    "simulate_how": (
        "What would other policies make of these jobs? A CSV file of up to {bytes} kB, its first {jobs} jobs, up to {policies} policies. Columns are like these:",
        "换用其他策略会怎样？上传不超过 {bytes} kB 的 CSV 文件，取前 {jobs} 个作业，最多 {policies} 个策略。列如下：",
    ),
    "example": ("Example", "示例"),
    "jobs_file": ("File with the jobs (CSV)", "作业文件（CSV）"),
    "file_chosen": ("{name} is read.", "已读取 {name}。"),
    "too_large": ("{name} is too large.", "{name} 过大。"),
    "no_file": ("Choose a file with jobs first.", "请先选择作业文件。"),
    "policies_wrong": ("Choose 1 to {most} policies.", "请选择 1 至 {most} 个策略。"),
    "load_wrong": ("Write a number from {least} to {most}.", "请写 {least} 至 {most} 之间的数。"),
    "policies": ("Policies", "策略"),
    "load": (
        "Load (0.9: the fleet is made so large that the jobs fill 90% of it)",
        "负载（0.9：集群大小使作业占用 90%）",
    ),
    "run": ("Simulate", "开始模拟"),
    "simulating": ("Simulating …", "正在模拟……"),
    "comparison": ("Policies side by side", "策略对比"),
    "simulated": (
        "Simulated: {jobs} jobs on {devices} devices; {skipped} rows were left out.",
        "模拟结果：{devices} 个设备上的 {jobs} 个作业；略过 {skipped} 行。",
    ),
    "policy": ("Policy", "策略"),
    "mean_jct": ("Mean completion", "平均完成时间"),
    "p99_jct": ("p99 completion", "p99 完成时间"),
    "mean_wait": ("Mean wait", "平均等待"),
    "p99_wait": ("p99 wait", "p99 等待"),
    "makespan": ("Makespan", "总时长"),
    "allocated": ("Allocated", "已分配"),
    "preemptions": ("Preemptions", "抢占次数"),
}


@dataclass(frozen=True, slots=True)
class Texts:
    """The texts in one language: ``texts("for_s", duration="3m")``."""

    language: Language

    def __call__(self, key: str, **values: object) -> str:
        """Return the text with the values in it."""
        found = TABLE[key][0 if self.language == "en" else 1]
        return found.format(**values) if values else found


def language_of(chosen: str | None, accepted: str | None) -> Language:
    """Return the language that was chosen, else the first one that the browser accepts and we have, else English."""
    if (known := _CODES.get(chosen or "")) is not None:
        return known
    ranked: list[tuple[float, int, Language]] = []
    for place, part in enumerate((accepted or "").split(",")):
        name, _, weight = part.strip().lower().partition(";q=")
        if (code := _CODES.get(name.partition("-")[0])) is not None:
            ranked.append((-_weight(weight), place, code))
    return min(ranked)[2] if ranked else "en"


def _weight(text: str) -> float:
    try:
        return float(text or 1)
    except ValueError:
        return 0.0
