#!/bin/bash
# Slurm: Ray on all nodes of one job, the search on the first; Ray ends with the search.
# 2 nodes x 8 GPUs = 16 workers. Change the #SBATCH lines to what your cluster calls things; the rest follows from them.
#
# Try it:    sbatch clusters/slurm.sh mine.yaml runs/mine            ($HOME or a project folder that all nodes see)
#            evomerge submit mine.yaml --cluster clusters/slurm.sh   checks the file first, then says what to type
# Options of `evomerge search` may follow:  sbatch clusters/slurm.sh mine.yaml runs/mine --candidates 500
# Watch:     tail -F evomerge-JOB.out      evomerge status runs/mine
# Stop:      scancel JOB                   everything measured is in the run folder; sbatch the same line to go on
#
# At the end of its time, or when it is preempted, the job is queued again and resumes by itself (--requeue, --resume).
# Tokens: sbatch passes your environment on; export HF_TOKEN before, and write it into no script.
#SBATCH --job-name=evomerge
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --mem=0
#SBATCH --exclusive
#SBATCH --time=12:00:00
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --signal=B:USR1@180
#SBATCH --output=evomerge-%j.out
set -euo pipefail

if [ $# -lt 2 ]; then
  echo "usage: sbatch $0 SEARCH_FILE RUN_FOLDER [OPTIONS OF evomerge search]" >&2
  exit 2
fi
file=$1 run=$2
shift 2

# Activate your environment here where ~/.bashrc does not: source ~/ev/bin/activate, or: module load ...

# Other people's Ray on the same nodes must not meet ours: a port and a folder of our own, by the job's number.
port=$((20000 + SLURM_JOB_ID % 20000))
scratch=/tmp/ray-$SLURM_JOB_ID
nodes=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
head=${nodes%%$'\n'*}
head_ip=$(srun --nodes=1 --ntasks=1 --nodelist="$head" hostname -I | awk '{print $1}')

# Three minutes before the end Slurm sends USR1: stand in the queue again, which ends this try.
trap 'echo "time is nearly over: queued again, to resume"; scontrol requeue "$SLURM_JOB_ID"' USR1

# Whoever reaches a Ray without a token can run code as you, and its ports are open to the network: a token for this job
# alone (Ray 2.52 and later ask for it), which srun passes to all nodes. The dashboard stays off.
RAY_AUTH_TOKEN=$(od -An -N32 -tx1 /dev/urandom | tr -d ' \n')
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}
srun --nodes="$SLURM_JOB_NUM_NODES" --ntasks="$SLURM_JOB_NUM_NODES" --ntasks-per-node=1 --kill-on-bad-exit=1 \
  ray symmetric-run --address "$head_ip:$port" --min-nodes "$SLURM_JOB_NUM_NODES" \
  --num-cpus="${SLURM_CPUS_PER_TASK:-1}" --num-gpus="${SLURM_GPUS_ON_NODE:-0}" \
  --temp-dir="$scratch" --include-dashboard=false --disable-usage-stats \
  -- evomerge search "$file" --out "$run" --address "$head_ip:$port" --resume "$@" &
search=$!

# `wait` returns at each signal; the search may go on, so it is waited for again until it has really ended.
status=0
wait "$search" || status=$?
while kill -0 "$search" 2>/dev/null; do
  status=0
  wait "$search" || status=$?
done
# ray symmetric-run ends with 0 where Ray itself could not start
if [ "$status" -eq 0 ] && [ ! -e "$run/archive.sqlite" ]; then
  echo "the search never began: see above what Ray says" >&2
  status=1
fi
exit "$status"
