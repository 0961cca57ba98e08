// The k memory cells most alike each query cell, on a CPU, in one pass over the memory and without a matrix of
// similarities. emavos.memory.native_readout compiles this file and calls it.
//
// The first channels of a cell bound its similarity from above, as the dot product of the others is at most the
// product of their norms. Cells that are bound to be below the k-th best so far, or so far below the best that their
// weight in a softmax vanishes, are not looked at further.
#include <algorithm>
#include <cstdint>
#include <limits>
#include <vector>

namespace {

constexpr int64_t QUERIES = 32;  // at once: two vectors of AVX-512
constexpr int64_t CELLS = 8;     // at once, so that their sums stay in registers
constexpr float INFINITE = std::numeric_limits<float>::infinity();

// Puts a cell in the place of the least of a heap, which is its first.
void replace_least(float* heap, int64_t* places, int64_t size, float similarity, int64_t place) {
    int64_t at = 0;
    for (int64_t below = 1; below < size; below = 2 * at + 1) {
        if (below + 1 < size && heap[below + 1] < heap[below]) ++below;
        if (heap[below] >= similarity) break;
        heap[at] = heap[below];
        places[at] = places[below];
        at = below;
    }
    heap[at] = similarity;
    places[at] = place;
}

// sums += the dot products of channels [first, last) of eight cells and of the queries.
void add_products(float (&sums)[CELLS][QUERIES], const float* const* row, const float* transposed, int64_t first,
                  int64_t last) {
    float own[CELLS][QUERIES];  // which no pointer reaches, so it stays in registers
    std::copy(&sums[0][0], &sums[0][0] + CELLS * QUERIES, &own[0][0]);
    for (int64_t c = first; c < last; ++c)
        for (int64_t n = 0; n < CELLS; ++n)
            for (int64_t i = 0; i < QUERIES; ++i) own[n][i] += row[n][c] * transposed[c * QUERIES + i];
    std::copy(&own[0][0], &own[0][0] + CELLS * QUERIES, &sums[0][0]);
}

}  // namespace

// query: (queries, channels). keys: (cells, channels). offset: (cells,). query_rest, key_rest: (queries,), (cells,), the
// norms of all channels but the first `lead`. before: cells of the memory in front of these. best, index: (queries, k),
// the k largest of query . key + offset so far and their cells, heaps, and after the call those with these cells among
// them; -inf where there are fewer or they are more than `span` below the largest. All are contiguous. With OpenMP so
// many threads share the queries; they are those of PyTorch, where its library is the same.
extern "C" void scan(const float* query, const float* keys, const float* offset, const float* query_rest,
                     const float* key_rest, int64_t queries, int64_t cells, int64_t channels, int64_t lead, int64_t k,
                     float span, int64_t threads, int64_t before, float* best, int64_t* index) {
#pragma omp parallel for num_threads(threads) schedule(dynamic)
    for (int64_t first = 0; first < queries; first += QUERIES) {
        const int64_t used = std::min(QUERIES, queries - first);
        std::vector<float> transposed(channels * QUERIES);
        float least[QUERIES], rest[QUERIES], most[QUERIES];
        for (int64_t i = 0; i < QUERIES; ++i) {
            const float* heap = best + (first + i) * k;
            most[i] = i < used ? *std::max_element(heap, heap + k) : -INFINITE;
            least[i] = i < used ? std::max(heap[0], most[i] - span) : INFINITE;
            rest[i] = i < used ? query_rest[first + i] : 0;
            for (int64_t c = 0; c < channels; ++c)
                transposed[c * QUERIES + i] = i < used ? query[(first + i) * channels + c] : 0;
        }
        int64_t waiting = 0;  // cells of which all channels count, and their sums so far
        int64_t place[CELLS];
        const float* whole[CELLS];
        float partial[CELLS][QUERIES];
        const auto finish = [&] {
            for (int64_t n = waiting; n < CELLS; ++n) whole[n] = whole[0];
            add_products(partial, whole, transposed.data(), lead, channels);
            for (int64_t n = 0; n < waiting; ++n)
                for (int64_t i = 0; i < QUERIES; ++i)
                    if (partial[n][i] > least[i]) {
                        float* heap = best + (first + i) * k;
                        replace_least(heap, index + (first + i) * k, k, partial[n][i], before + place[n]);
                        most[i] = std::max(most[i], partial[n][i]);
                        least[i] = std::max(heap[0], most[i] - span);
                    }
            waiting = 0;
        };
        for (int64_t end = cells; end > 0; end -= CELLS) {  // backwards: the last frames are the most alike
            const float* row[CELLS];
            float sums[CELLS][QUERIES];
            for (int64_t n = 0; n < CELLS; ++n) {
                const int64_t cell = std::max<int64_t>(end - 1 - n, 0);
                row[n] = keys + cell * channels;
                for (int64_t i = 0; i < QUERIES; ++i) sums[n][i] = offset[cell];
            }
            add_products(sums, row, transposed.data(), 0, lead);
            for (int64_t n = 0; n < std::min(CELLS, end); ++n) {
                const float bound = key_rest[end - 1 - n];
                int any = 0;
                for (int64_t i = 0; i < QUERIES; ++i) any |= sums[n][i] + bound * rest[i] > least[i];
                if (!any) continue;
                whole[waiting] = row[n];
                place[waiting] = end - 1 - n;
                std::copy(sums[n], sums[n] + QUERIES, partial[waiting]);
                if (++waiting == CELLS) finish();
            }
        }
        if (waiting) finish();
    }
}
